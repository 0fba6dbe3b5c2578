"""A circuit breaker: a model server that fails is not asked for exam after exam, but probed until it works again."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from node.errors import InferenceUnavailableError, ModelDiedError, ModelError, ModelWaitError

logger = logging.getLogger(__name__)

FAILURES = 3
"""So many in a row open it; one is enough where the model's process has died."""
PROBE_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 60.0


class Breaker:
    """Closed: exams go through. Open: they wait (ModelWaitError), and at most every PROBE_SECONDS one brings a probe.

    `probe` does a real inference and raises a ModelError where it fails. `cure` is tried once each time that it opens
    and only for a dead process; False: it was of no use. State of one process; safe between threads.
    """

    def __init__(
        self, probe: Callable[[], None], cure: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe, self._cure, self._clock = probe, cure, clock
        self._lock = Lock()
        self._failures = 0
        self._opened: float | None = None
        self._probe_at = 0.0
        self._is_cured = False
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Whether exams wait."""
        return self._opened is not None

    def check(self) -> None:
        """Return where an exam may go through, after a probe where one is due. Raises ModelWaitError."""
        with self._lock:
            if self._opened is None:
                return
            if self._clock() < self._probe_at:
                raise self._waiting()
            try:
                self._try_probe()
            except ModelError as error:
                self._reason = str(error)
                self._probe_at = self._clock() + PROBE_SECONDS
                raise self._waiting() from error
            logger.warning("the model server works again after %.0f s", self._clock() - self._opened)
            self._opened, self._failures = None, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count how an inference ends; what says nothing of the server (input refused, queue full) is not counted."""
        try:
            yield
        except ModelWaitError:
            raise
        except InferenceUnavailableError as error:
            with self._lock:
                self._count(error)
            raise
        else:
            self._failures = 0

    def _count(self, error: InferenceUnavailableError) -> None:
        self._failures += 1
        if self._opened is not None or (self._failures < FAILURES and not isinstance(error, ModelDiedError)):
            return
        self._opened, self._is_cured, self._reason = self._clock(), False, str(error)
        self._probe_at = self._opened if isinstance(error, ModelDiedError) else self._opened + PROBE_SECONDS
        logger.error("ALARM the model server is not asked any more, but probed: %s", error)

    def _try_probe(self) -> None:
        try:
            self._probe()
        except ModelDiedError:
            if self._is_cured:
                raise
            self._is_cured = True
            if not self._cure():
                raise
            self._probe()

    def _waiting(self) -> ModelWaitError:
        """Exams come back the later the longer it lasts, so that a long queue does not turn in circles."""
        lasted = self._clock() - (self._opened or 0.0)
        seconds = min(max(lasted, PROBE_SECONDS), LONGEST_WAIT_SECONDS)
        words = f"the model server does not work and is probed every {PROBE_SECONDS:g} s: {self._reason}"
        return ModelWaitError(words, seconds)
