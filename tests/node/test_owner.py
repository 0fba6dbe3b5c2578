"""Who holds a lease, and whether that process still lives."""

import os
import subprocess
import sys

from node.owner import is_dead, owner_name


def test_this_process_lives() -> None:
    assert not is_dead(owner_name())
    assert len(owner_name()) <= 128


def test_process_that_ended_is_dead_and_so_is_one_whose_pid_was_given_again() -> None:
    command = [sys.executable, "-c", "from node.owner import owner_name; print(owner_name())"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert is_dead(ended)
    host, namespace, _, started = owner_name().split("/")
    assert is_dead(f"{host}/{namespace}/{os.getpid()}/{int(started) - 1}")


def test_killed_child_that_nobody_waited_for_is_dead() -> None:
    command = [sys.executable, "-c", "from node.owner import owner_name; print(owner_name(), flush=True); input()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        lived = not is_dead(owner)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        assert lived
        assert is_dead(owner)


def test_process_of_another_host_is_left_to_its_lease() -> None:
    assert not is_dead("elsewhere/4026531836/1/1")
    assert not is_dead("anything")
