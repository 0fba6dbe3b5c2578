"""The circuit breaker: when exams wait, when a probe is made, when a dead process is cured."""

import pytest

from node.errors import InferenceError, InferenceUnavailableError, ModelDiedError, ModelError, ModelWaitError
from node.inference.breaker import FAILURES, LONGEST_WAIT_SECONDS, PROBE_SECONDS, Breaker

AWAY = InferenceUnavailableError("the server is away")
DEAD = ModelDiedError("the process has died")


class Server:
    """A model server in memory: answers, or fails with `illness`; to unload and load it mends a dead process."""

    def __init__(self) -> None:
        self.illness: ModelError | None = None
        self.now = 1000.0
        self.probes = self.reloads = 0
        self.reload_helps = True
        self.breaker = Breaker(self.probe, self.reload, lambda: self.now)

    def probe(self) -> None:
        self.probes += 1
        self.answer()

    def reload(self) -> bool:
        self.reloads += 1
        if self.reload_helps:
            self.illness = None
        return self.reload_helps

    def answer(self) -> None:
        if self.illness is not None:
            raise self.illness

    def ask(self) -> None:
        self.breaker.check()
        with self.breaker.watched():
            self.answer()

    def fail(self, times: int, error: ModelError) -> None:
        self.illness = error
        for _ in range(times):
            with pytest.raises(type(error)):
                self.ask()


def test_it_opens_after_some_failures_in_a_row_and_then_nobody_asks() -> None:
    server = Server()
    server.fail(FAILURES - 1, AWAY)
    assert not server.breaker.is_open
    server.fail(1, AWAY)
    assert server.breaker.is_open
    with pytest.raises(ModelWaitError, match=r"does not work and is probed every 5 s: the server is away") as waits:
        server.ask()
    assert waits.value.seconds == PROBE_SECONDS
    assert server.probes == 0


def test_a_success_between_failures_starts_the_count_anew() -> None:
    server = Server()
    server.fail(FAILURES - 1, AWAY)
    server.illness = None
    server.ask()
    server.fail(FAILURES - 1, AWAY)
    assert not server.breaker.is_open


@pytest.mark.parametrize("error", [InferenceError("this input"), ModelWaitError("its queue is full", 30.0)])
def test_what_says_nothing_of_the_server_is_not_counted(error: ModelError) -> None:
    server = Server()
    server.fail(3 * FAILURES, error)
    assert not server.breaker.is_open


def test_a_probe_that_works_closes_it() -> None:
    server = Server()
    server.fail(FAILURES, AWAY)
    server.illness = None
    with pytest.raises(ModelWaitError):
        server.ask()
    server.now += PROBE_SECONDS
    server.ask()
    assert server.probes == 1
    assert not server.breaker.is_open
    server.fail(FAILURES - 1, AWAY)
    assert not server.breaker.is_open


def test_one_probe_in_so_many_seconds_whoever_comes() -> None:
    server = Server()
    server.fail(FAILURES, AWAY)
    for _ in range(40):
        server.now += PROBE_SECONDS / 4
        with pytest.raises(ModelWaitError):
            server.ask()
    assert server.probes == 10


def test_the_longer_it_lasts_the_longer_an_exam_waits() -> None:
    server = Server()
    server.fail(FAILURES, AWAY)
    waits = []
    for _ in range(30):
        server.now += PROBE_SECONDS
        with pytest.raises(ModelWaitError) as error:
            server.ask()
        waits.append(error.value.seconds)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (PROBE_SECONDS, LONGEST_WAIT_SECONDS)


def test_a_dead_process_opens_it_at_once_and_is_cured_by_the_next_exam() -> None:
    server = Server()
    server.fail(1, DEAD)
    assert server.breaker.is_open
    server.ask()
    assert (server.probes, server.reloads) == (2, 1)
    assert not server.breaker.is_open


def test_the_cure_is_tried_once_while_it_is_open() -> None:
    server = Server()
    server.reload_helps = False
    server.fail(1, DEAD)
    for _ in range(10):
        with pytest.raises(ModelWaitError, match="the process has died"):
            server.ask()
        server.now += PROBE_SECONDS
    assert server.reloads == 1
    server.illness = None
    server.ask()
    server.reload_helps = True
    server.fail(1, DEAD)
    server.ask()
    assert server.reloads == 2


def test_no_cure_for_a_server_that_is_away() -> None:
    server = Server()
    server.fail(FAILURES, AWAY)
    server.now += PROBE_SECONDS
    with pytest.raises(ModelWaitError):
        server.ask()
    assert (server.probes, server.reloads) == (1, 0)


def test_an_answer_that_breaks_the_contract_does_not_close_it() -> None:
    server = Server()
    server.fail(FAILURES, AWAY)
    server.illness = InferenceError("output exam_logit is not finite")
    server.now += PROBE_SECONDS
    with pytest.raises(ModelWaitError, match="exam_logit is not finite"):
        server.ask()
    assert server.breaker.is_open
