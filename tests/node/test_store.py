"""Bytes on disk: safe paths, durable order, and what happens when the disk is full."""

import hashlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.errors import DataSetMismatchError, OutOfResourcesError
from node.store import Store, content_hash, data_set_offset

UID = "1.2.840.113619.2.255.1"
DIGEST = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def test_a_kept_file_stands_under_its_uid_and_content(store: Store) -> None:
    arrived = store.open_incoming()
    arrived.write(b"one")
    arrived.write(bytearray(b"two"))
    kept = store.path_of(UID, DIGEST)
    store.keep(arrived, kept)
    arrived.discard()
    assert kept == store.folder / "instances" / "ab" / f"{UID}.{DIGEST[:16]}.dcm"
    assert kept.read_bytes() == b"onetwo"
    assert list(store.incoming.iterdir()) == []


def test_what_is_not_kept_leaves_nothing(store: Store) -> None:
    arrived = store.open_incoming()
    arrived.write(b"one")
    arrived.discard()
    assert list(store.incoming.iterdir()) == []


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, kept = store.open_incoming(), store.path_of(UID, DIGEST)
    arrived.write(b"one")
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), kept.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    store.keep(arrived, kept)
    arrived.discard()
    assert synced == [(arrived.name, False), (str(kept.parent), True)]


def test_leftovers_of_a_crash_are_cleared(store: Store) -> None:
    for _ in range(3):
        store.open_incoming().close()
    assert Store(store.folder).clear_incoming() == 3
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize("uid", ["../../etc/passwd", "", "1.2/3", "1.2.840\0"])
def test_no_path_is_made_of_what_is_no_uid(store: Store, uid: str) -> None:
    with pytest.raises(DataSetMismatchError):
        store.path_of(uid, DIGEST)


def test_a_store_that_cannot_be_made_is_out_of_resources(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutOfResourcesError):
        Store(tmp_path / "file")


def test_an_incoming_folder_that_is_gone_is_out_of_resources(store: Store) -> None:
    store.incoming.rmdir()
    arrived = store.open_incoming()
    assert arrived.write(b"one") == 3
    with pytest.raises(OutOfResourcesError):
        arrived.check()
    arrived.discard()


@pytest.fixture
def no_longer_files() -> Iterator[None]:
    """A real limit of the kernel: a file grows to 1 MB, no further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("no_longer_files")
def test_a_write_that_fails_is_answered_later_and_frees_the_disk_now(store: Store) -> None:
    arrived = store.open_incoming()
    assert [arrived.write(bytes(400_000)) for _ in range(4)] == [400_000] * 4
    assert list(store.incoming.iterdir()) == []
    with pytest.raises(OutOfResourcesError, match="too large"):
        store.keep(arrived, store.path_of(UID, DIGEST))
    arrived.discard()
    assert not store.path_of(UID, DIGEST).exists()


def test_a_full_disk_is_out_of_resources(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode().strip()}")
    try:
        store = Store(tmp_path)
        arrived = store.open_incoming()
        for _ in range(10):
            arrived.write(bytes(1 << 20))
        with pytest.raises(OutOfResourcesError, match="No space left"):
            arrived.check()
        arrived.discard()
        assert list(store.incoming.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_content_hash_starts_behind_the_file_meta(tmp_path: Path) -> None:
    path = tmp_path / "part10"
    meta = bytes.fromhex("02001000 55490600") + b"1.2.8\0"
    path.write_bytes(bytes(128) + b"DICM" + bytes.fromhex("02000000 554c0400 0e000000") + meta + b"data set")
    assert data_set_offset(path) == 144 + 14
    assert content_hash(path, data_set_offset(path)) == hashlib.sha256(b"data set").hexdigest()
