"""Who holds a lease: this process, named so that others on its host can tell whether it still lives."""

import os
import socket
from pathlib import Path


def owner_name() -> str:
    """host/PID namespace/process id/start time, at most 128 characters; another process never has the same."""
    pid = os.getpid()
    return f"{_host()}/{pid}/{_started(pid)}"


def is_dead(owner: str) -> bool:
    """True where `owner` was a process of this host and is gone; False for one of another host: its lease decides."""
    host, _, process = owner.rpartition("/")[0].rpartition("/")
    if host != _host() or not process.isdecimal():
        return False
    return _started(int(process)) != owner.rpartition("/")[2]


def _host() -> str:
    return f"{socket.gethostname()[:64]}/{os.stat('/proc/self/ns/pid').st_ino}"


def _started(pid: int) -> str:
    """Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)); empty for no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
