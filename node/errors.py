"""The error tree. Callers act on two facts: `retryable`, and `dimse_status` where a sender must be answered.

NodeError
├── SettingsError                     settings.toml or the environment is wrong; names the key
├── QuestionError                     a phrase that is asked for cannot be understood; says why
├── ReceiveError                      a sender is answered with dimse_status (PS3.4 B.2.3, PS3.7 C)
│   ├── NotUnderstoodError            0xC000  not DICOM, truncated, wrong length
│   ├── DataSetMismatchError          0xA900  data set does not match the SOP class, unsafe UID
│   ├── SopClassError                 0x0122  SOP class not supported
│   └── OutOfResourcesError           0xA700  disk or database full or away; the sender may try again
├── UnreadableError                   this exam cannot be read, a person must look; never retried
│   ├── ViewError                     no side, no view, or two sources that contradict each other
│   └── PixelError                    pixel data that cannot be decoded as its transfer syntax says
├── ModelError
│   ├── ContractError                 the model's contract does not match what the node needs
│   ├── InferenceError                the model answered with an error for this input
│   ├── NotOfferedError               there is no model for what was asked: no exam_query, no text_encoder
│   └── InferenceUnavailableError     retryable: server away, deadline passed
│       ├── NotServedError            the server answers and has no model of that name
│       ├── ModelDiedError            the server runs, the process in it that computes the model does not
│       └── ModelWaitError            the exam had no turn: server busy, or not asked since it failed; no try counts
├── EncodeError                       a result could not be rendered as a valid object
└── DeliveryError
    ├── DestinationRefusedError       the destination answered with a failure that a retry cannot mend
    │   ├── ClassRefusedError         it takes no objects of that SOP class
    │   └── RequestRefusedError       it refused a whole request; its objects may be taken one by one
    └── DestinationUnavailableError   retryable: no connection, out of resources, 5xx
"""

from typing import ClassVar


class NodeError(Exception):
    """Root of every error that the node raises itself. Messages name UIDs, views, statuses; never the patient."""

    retryable: ClassVar[bool] = False
    dimse_status: ClassVar[int | None] = None


class SettingsError(NodeError):
    """A key of settings.toml or of the environment is unknown, missing or of the wrong type."""


class QuestionError(NodeError):
    """A phrase names no finding, two places, or cannot be understood otherwise."""


class ReceiveError(NodeError):
    """What a sender sent cannot be stored; `dimse_status` is its answer."""

    dimse_status: ClassVar[int | None] = 0xC000


class NotUnderstoodError(ReceiveError):
    """Cannot understand (0xC000): not DICOM, truncated, wrong length."""


class DataSetMismatchError(ReceiveError):
    """Data set does not match SOP class (0xA900), or holds a UID that is none."""

    dimse_status: ClassVar[int | None] = 0xA900


class SopClassError(ReceiveError):
    """SOP class not supported (0x0122)."""

    dimse_status: ClassVar[int | None] = 0x0122


class OutOfResourcesError(ReceiveError):
    """Out of resources (0xA700): disk or database; the sender may try again."""

    retryable: ClassVar[bool] = True
    dimse_status: ClassVar[int | None] = 0xA700


class UnreadableError(NodeError):
    """The exam cannot be read as it stands; the message is the reason shown to a person."""


class ViewError(UnreadableError):
    """Side or view is missing, not supported, or stated differently by two attributes."""


class PixelError(UnreadableError):
    """Pixel data cannot be decoded, or is not what the header says."""


class ModelError(NodeError):
    """The model cannot be used."""


class ContractError(ModelError):
    """The model's contract does not match what the node needs; the node refuses to start."""


class InferenceError(ModelError):
    """The model answered this input with an error, or with values that break its contract."""


class InferenceUnavailableError(ModelError):
    """The model server is away or too slow; a later try may work."""

    retryable: ClassVar[bool] = True


class NotServedError(InferenceUnavailableError):
    """The model server answers and has no model of that name; it may be given one."""


class ModelDiedError(InferenceUnavailableError):
    """The model's own process in the server has died; to unload and load the model mends it."""


class ModelWaitError(InferenceUnavailableError):
    """The exam had no turn at the model, for no fault of its own: it waits `seconds`, and no try is counted."""

    def __init__(self, words: str, seconds: float) -> None:
        super().__init__(words)
        self.seconds = seconds


class NotOfferedError(ModelError):
    """There is no model for what was asked, and none is needed for anything else."""


class EncodeError(NodeError):
    """A result could not be rendered as a valid DICOM object."""


class DeliveryError(NodeError):
    """A result did not reach its destination."""


class DestinationRefusedError(DeliveryError):
    """The destination refused the object for a reason that a retry cannot mend."""


class ClassRefusedError(DestinationRefusedError):
    """The destination takes no objects of that SOP class, or none in a transfer syntax that the node has."""


class RequestRefusedError(DestinationRefusedError):
    """The destination refused a request as a whole, for what is in it: one object alone may be taken."""


class DestinationUnavailableError(DeliveryError):
    """The destination is away, busy or out of resources; a later try may work."""

    retryable: ClassVar[bool] = True


MAX_ATTEMPTS = 12
FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 3600.0


def retry_after(error: Exception, attempts: int) -> float | None:
    """Seconds until the next try after `attempts` tries (>= 1) that ended in `error`, or None: do not try again.

    Only a retryable NodeError is tried again: after 5 s, doubling up to one hour, 12 tries in all. Any other
    exception is a defect or a verdict and is shown to a person.
    """
    if not isinstance(error, NodeError) or not error.retryable or attempts >= MAX_ATTEMPTS:
        return None
    return float(min(FIRST_DELAY_SECONDS * 2.0 ** (attempts - 1), LONGEST_DELAY_SECONDS))
