"""The embedded Valkey: what it keeps, who may start it, how it ends."""

import os
import signal
from pathlib import Path

import pytest

from node.broker import EmbeddedBroker, connect, socket_path
from node.errors import SettingsError


def test_kill_and_restart_loses_nothing(tmp_path: Path) -> None:
    url = f"redis+socket://{socket_path(tmp_path)}"
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    try:
        with connect(url) as client:
            client.lpush("queue", "a", "b")
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        while broker.is_running():
            pass
        broker.start()
        with connect(url) as client:
            assert client.lrange("queue", 0, -1) == [b"b", b"a"]
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
    finally:
        broker.stop()
    assert not broker.is_running()


def test_one_node_for_one_data_folder(tmp_path: Path) -> None:
    first, second = EmbeddedBroker(tmp_path), EmbeddedBroker(tmp_path)
    first.start()
    try:
        with pytest.raises(SettingsError, match="another node works"):
            second.start()
        assert first.is_running()
    finally:
        first.stop()


def test_server_left_by_a_killed_node_is_ended_first(tmp_path: Path) -> None:
    first, second = EmbeddedBroker(tmp_path), EmbeddedBroker(tmp_path)
    first.start()
    with connect(f"unix://{socket_path(tmp_path)}") as client:
        client.set("kept", "1")
        leftover = client.info("server")["process_id"]
    assert first._lock is not None
    first._lock.close()  # what the kernel does for a process that was killed
    second.start()
    try:
        with connect(f"unix://{socket_path(tmp_path)}") as client:
            assert client.get("kept") == b"1"
            assert client.info("server")["process_id"] != leftover
    finally:
        second.stop()
        first.stop()


def test_socket_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="data_folder"):
        socket_path(tmp_path / ("x" * 100))
