"""The TCP side of the listener: what pynetdicom's server leaves to be wished for."""

import select
import socket
from contextlib import suppress
from socketserver import BaseServer
from typing import Any

from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

LONGEST_PDU_BYTES = 16 << 20
"""Longer than any PDU that a peer may send us; a length beyond it is an attack or an accident."""
STALLED_SECONDS = 60.0
"""A peer that stops in the middle of a PDU is let go after this time."""


WAIT_SECONDS = 0.0005
"""How long a look at the socket waits for data; an answer to be sent waits as long at most."""


class PromptSocket(AssociationSocket):  # type: ignore[misc]
    """Reads a PDU in as few calls as the kernel allows: pynetdicom's 4096 bytes a call cost a third of the time.

    Waits for data in the kernel, which ends the wait as data comes; pynetdicom sleeps for a millisecond each time.
    """

    def __init__(self, accepted: AssociationSocket) -> None:
        self.__dict__.update(vars(accepted))

    @property
    def ready(self) -> bool:
        """Whether data can be read now or within WAIT_SECONDS; a closed or broken connection counts (Evt17)."""
        if self.socket is None or self._is_connected is False:
            return False
        try:
            return bool(select.select([self.socket], [], [], WAIT_SECONDS)[0])
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, fewer only where the peer closed. Raises OSError, which ends the association."""
        if nr_bytes > LONGEST_PDU_BYTES:
            raise OSError(f"a PDU of {nr_bytes} bytes is refused")
        content = bytearray(nr_bytes)
        view, have = memoryview(content), 0
        while have < nr_bytes:
            count = self.socket.recv_into(view[have:])
            if count == 0:
                return content[:have]
            have += count
        return content


class PromptRequest(RequestHandler):  # type: ignore[misc]
    """One accepted connection."""

    def _create_association(self) -> Any:
        association = super()._create_association()
        association.dul.socket = PromptSocket(association.dul.socket)
        association.dul._run_loop_delay = 0.0  # PromptSocket.ready waits instead
        return association


class StorageServer(ThreadedAssociationServer):  # type: ignore[misc]
    """Accepts connections: no Nagle delay on small answers, a time limit on a peer that stalls."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, request_handler=PromptRequest)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection, set up."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(STALLED_SECONDS)
        return connection, address

    def service_actions(self) -> None:
        """Nothing: pynetdicom's own collects all garbage every few seconds, which stops each association meanwhile.
        Python's collector does without being asked; the benchmark of receipt watches the memory.
        """

    def shutdown(self) -> None:
        """Accept nothing more. pynetdicom's own also looks itself up in a list that `make_server` does not fill."""
        BaseServer.shutdown(self)
        self.server_close()


def hang_up(association: Any) -> None:
    """End a connection on which no association was opened; its threads end by themselves."""
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        with suppress(OSError):  # the peer was quicker
            connection.socket.shutdown(socket.SHUT_RDWR)
