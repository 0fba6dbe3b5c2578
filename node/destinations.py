"""Where results go, which objects each destination gets, and in what form. A table of presets, and what cannot work."""

from collections.abc import Callable
from dataclasses import dataclass

from node.errors import SettingsError

PROTOCOLS = ("dicom", "dicomweb", "hl7")
OBJECTS = ("CADSR", "SR", "GSPS", "SC", "SCVIEW", "SEG", "LABELMAP", "HEATMAP", "KOS")
"""What `objects` may name: the values of results.reading.ResultKind that a site chooses."""
FRAMES = ("source", "own")
RENDERING_INTENTS = ("required", "optional", "not", "omit")
EXAM_VALUES = ("text", "number", "none")


@dataclass(frozen=True, slots=True)
class CadProfile:
    """How a workstation wants its Mammography CAD SR."""

    required_at: tuple[tuple[str, float], ...] = ()
    """Finding name to probability, in (0, 1): from here on "Presentation Required"; a kind without entry: all marks."""
    below: str = "optional"
    """Marks under `required_at`: "optional", "not" (Not for Presentation), or "omit" (left out)."""
    exam_value: str = "text"
    """Exam and breast values: "text" (Impression Description), "number" (NUM, outside the template), or "none"."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go: C-STORE ("dicom"), STOW-RS ("dicomweb"), or an HL7 v2 ORU^R01 message by MLLP ("hl7")."""

    name: str
    protocol: str
    host: str = ""
    port: int = 0
    ae_title: str = ""
    url: str = ""
    username: str = ""
    password: str = ""
    """From the environment, MAMMOCLIP_DESTINATION_<NAME>_PASSWORD; never from the file."""
    timeout_seconds: float = 30.0
    preset: str = ""
    """Name in PRESETS; it sets the keys below that are not given. Empty: DEFAULT_PRESET."""
    objects: tuple[str, ...] | None = None
    segmentation_frame: str | None = None
    """"source": frames of the source's size, no Frame of Reference of our own; "own": with one, plane and spacing."""
    explain_unread: bool | None = None
    """True: an exam that was skipped or failed gives a CAD SR and a report that say why."""
    retract: bool = False
    """True: a later reading withdraws the objects of the earlier one by a rejection note (IHE IOCM)."""
    cad: CadProfile = CadProfile()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The objects that it gets; none where it gets a message."""
        if self.objects is not None or self.protocol == "hl7":
            return self.objects or ()
        return self._preset.objects

    @property
    def frame(self) -> str:
        """The frame of its segmentations: "source" or "own"."""
        return self.segmentation_frame or self._preset.segmentation_frame

    @property
    def wants_unread(self) -> bool:
        """Whether it is told why an exam was not read."""
        return self._preset.explain_unread if self.explain_unread is None else self.explain_unread

    @property
    def _preset(self) -> "Preset":
        return PRESETS[self.preset or DEFAULT_PRESET]


@dataclass(frozen=True, slots=True)
class Preset:
    """What a kind of destination usually wants."""

    objects: tuple[str, ...]
    segmentation_frame: str = "source"
    explain_unread: bool = False


DEFAULT_PRESET = "general-pacs"
PRESETS: dict[str, Preset] = {
    "breast-workstation": Preset(("CADSR", "GSPS", "SC"), explain_unread=True),
    "general-pacs": Preset(("SR", "SEG", "HEATMAP", "GSPS", "SC", "KOS")),
    "ohif": Preset(("SR", "SEG", "SC"), segmentation_frame="own"),
    "archive": Preset(("CADSR", "SR", "LABELMAP", "HEATMAP", "KOS"), explain_unread=True),
}


def check_destination(destination: Destination, where: str) -> None:
    """Refuse what cannot work, and say why. Raises SettingsError that names the key."""
    if destination.preset and destination.preset not in PRESETS:
        raise SettingsError(f"{where}.preset: no preset {destination.preset!r}; known: {', '.join(PRESETS)}")
    for key, holds in _needs(destination).items():
        if not holds():
            raise SettingsError(
                f"{where}.{key}: cannot be {getattr(destination, key)!r} for a destination by protocol "
                f"{destination.protocol!r}"
            )


def _needs(destination: Destination) -> dict[str, Callable[[], bool]]:
    has_host = destination.protocol in ("dicom", "hl7")
    return {
        "protocol": lambda: destination.protocol in PROTOCOLS,
        "host": lambda: not has_host or bool(destination.host),
        "port": lambda: not has_host or is_port(destination.port),
        "ae_title": lambda: destination.protocol != "dicom" or is_ae_title(destination.ae_title),
        "url": lambda: destination.protocol != "dicomweb" or destination.url.startswith(("http://", "https://")),
        "timeout_seconds": lambda: destination.timeout_seconds > 0,
        "objects": lambda: set(destination.kinds) <= set(OBJECTS),
        "segmentation_frame": lambda: destination.frame in FRAMES,
    }


def is_ae_title(text: str) -> bool:
    """1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2)."""
    return 1 <= len(text.strip()) <= 16 and text.isascii() and text.isprintable() and "\\" not in text


def is_port(number: int) -> bool:
    """A TCP port."""
    return 1 <= number <= 65535
