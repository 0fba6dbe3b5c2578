"""Real MLLP listeners on free loopback ports: the one of the library `hl7`, and the one of `hl7apy`."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hl7
from hl7.mllp import start_hl7_server
from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message

Answer = Callable[[hl7.Message, Any], Awaitable[None]]
"""What a listener does with a message that it has parsed, and the writer of the connection."""


@dataclass
class Listener:
    port: int = 0
    received: list[str] = field(default_factory=list)
    stop: Callable[[], object] = lambda: None


async def take(message: hl7.Message, writer: Any) -> None:
    """The library's own acknowledgement."""
    writer.writemessage(message.create_ack("AA"))
    await writer.drain()


@contextmanager
def hl7_listener(answer: Answer = take) -> Iterator[Listener]:
    """`hl7.mllp`: reads blocks as its own reader parts them, answers by `answer`."""
    listener, ready = Listener(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(listener, answer, ready)), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield listener
    finally:
        listener.stop()
        thread.join(10)


async def _serve(listener: Listener, answer: Answer, ready: threading.Event) -> None:
    async def connected(reader: Any, writer: Any) -> None:
        try:
            message = await reader.readmessage()
            listener.received.append(str(message))
            await answer(message, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    server = await start_hl7_server(connected, "127.0.0.1", 0, encoding="utf-8")
    listener.port = server.sockets[0].getsockname()[1]
    listener.stop = lambda: loop.call_soon_threadsafe(stop.set)
    ready.set()
    async with server:
        await stop.wait()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.01)


@contextmanager
def hl7apy_listener() -> Iterator[Listener]:
    """`hl7apy.mllp.MLLPServer`: takes ORU^R01 that its strict parser can read, and closes the connection otherwise."""
    listener = Listener()

    class Taking(AbstractHandler):  # type: ignore[misc]
        def reply(self) -> str:
            listener.received.append(self.incoming_message)
            header = parse_message(self.incoming_message, force_validation=True).msh
            answer = f"MSH|^~\\&|||||20260101||ACK^R01^ACK|1|P|2.5.1\rMSA|AA|{header.msh_10.to_er7()}\r"
            return f"\x0b{answer}\x1c\r"

    server = MLLPServer("127.0.0.1", 0, {"ORU^R01^ORU_R01": (Taking,)})
    listener.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
