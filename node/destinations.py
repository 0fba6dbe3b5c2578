"""Where results go, which objects each destination gets, and in what form. A table of presets, and what cannot work."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from node.errors import SettingsError

PROTOCOLS = ("dicom", "dicomweb", "hl7")
OBJECTS = ("CADSR", "SR", "GSPS", "SC", "SCVIEW", "SEG", "LABELMAP", "HEATMAP", "KOS")
"""What `objects` may name: the values of results.reading.ResultKind that a site chooses."""
MESSAGE = "ORU"
"""What a destination by protocol "hl7" gets instead of objects."""
FRAMES = ("source", "own")
FINDINGS = ("mass", "suspicious_calcification", "architectural_distortion", "asymmetry")
"""What `cad.required_at` may name: the values of mammography.findings.FindingKind."""
BELOW = ("optional", "not", "omit")
EXAM_VALUES = ("text", "number", "none")
EXPLAINING = frozenset({"CADSR", "SR", MESSAGE})
"""What can say why an exam was not read."""
FRAMED = frozenset({"SEG", "LABELMAP", "HEATMAP"})
"""What `segmentation_frame` shapes."""


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
        """The kinds that it gets, as values of results.reading.ResultKind."""
        if self.protocol == "hl7":
            return (MESSAGE,)
        return self._preset.objects if self.objects is None else self.objects

    @property
    def frame(self) -> str:
        """The frame of its segmentations: "source" or "own"."""
        return self.segmentation_frame or self._preset.segmentation_frame

    @property
    def wants_unread(self) -> bool:
        """Whether it is told why an exam was not read: by its own setting, or its preset's where its objects can."""
        if self.explain_unread is not None:
            return self.explain_unread
        return self.protocol != "hl7" and self._preset.explain_unread and bool(EXPLAINING & set(self.kinds))

    @property
    def _preset(self) -> "Preset":
        return PRESETS.get(self.preset or DEFAULT_PRESET, PRESETS[DEFAULT_PRESET])


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
    for key, wrong, why in _CANNOT_WORK:
        found = wrong(destination)
        if found:
            raise SettingsError(f"{where}.{key}: {why.format(d=destination, found=found)}")


def _unknown(names: Iterable[str], known: Iterable[str]) -> str:
    """Those of `names` that are not known, in words."""
    return ", ".join(sorted(set(names) - set(known)))


def _is_host(text: str) -> bool:
    """A name or an address, without scheme, user, port or path."""
    try:
        return bool(ip_address(text))
    except ValueError:
        return text.isascii() and not set(text) & set(" :/@[]")


_OBJECTS = ", ".join(OBJECTS)
_NO_OBJECTS = "an HL7 destination gets one message for each reading, and no objects; leave it out"
_CANNOT_WORK: tuple[tuple[str, Callable[[Destination], object], str], ...] = (
    ("name", lambda d: not 1 <= len(d.name.strip()) <= 128, "must have 1 to 128 characters"),
    ("protocol", lambda d: d.protocol not in PROTOCOLS, f"must be one of {', '.join(PROTOCOLS)}"),
    ("timeout_seconds", lambda d: d.timeout_seconds <= 0, "must be above 0"),
    # where it is
    (
        "host",
        lambda d: d.protocol == "dicomweb" and bool(d.host or d.port or d.ae_title),
        'dicomweb is reached at url alone; host, port and ae_title belong to protocol "dicom"',
    ),
    (
        "url",
        lambda d: d.protocol != "dicomweb" and bool(d.url or d.username),
        '{d.protocol} is reached at host and port; url and username belong to protocol "dicomweb"',
    ),
    (
        "url",
        lambda d: d.protocol == "dicomweb" and not d.url.startswith(("http://", "https://")),
        "must begin with http:// or https://",
    ),
    (
        "url",
        lambda d: "@" in d.url.partition("://")[2].partition("/")[0],
        "no user and no password in it; the user is username, the password comes from the environment",
    ),
    ("host", lambda d: d.protocol != "dicomweb" and not d.host, "missing: where is the destination?"),
    (
        "host",
        lambda d: d.protocol != "dicomweb" and not _is_host(d.host),
        "must be a name or an address alone; the port is a key of its own",
    ),
    ("port", lambda d: d.protocol != "dicomweb" and not is_port(d.port), "must be 1 to 65535"),
    ("ae_title", lambda d: d.protocol == "dicom" and not is_ae_title(d.ae_title), "must have 1 to 16 characters"),
    ("ae_title", lambda d: d.protocol == "hl7" and bool(d.ae_title), "HL7 knows no AE title"),
    # what it gets
    ("preset", lambda d: d.preset not in ("", *PRESETS), f"no such preset; known: {', '.join(PRESETS)}"),
    ("preset", lambda d: d.protocol == "hl7" and d.preset, _NO_OBJECTS),
    ("objects", lambda d: d.protocol == "hl7" and d.objects is not None, _NO_OBJECTS),
    ("objects", lambda d: d.objects == (), f"is empty: nothing would ever be sent; choose of {_OBJECTS}"),
    ("objects", lambda d: _unknown(d.objects or (), OBJECTS), f"{{found}} is unknown; choose of {_OBJECTS}"),
    ("objects", lambda d: len(set(d.kinds)) != len(d.kinds), "names one twice"),
    ("objects", lambda d: d.kinds == ("KOS",), "KOS names the other objects of a destination; alone it names nothing"),
    (
        "objects",
        lambda d: {"SEG", "LABELMAP"} <= set(d.kinds),
        "SEG and LABELMAP are the same regions twice; with LABELMAP alone, SEG goes where LABELMAP is not taken",
    ),
    # in what form
    (
        "segmentation_frame",
        lambda d: d.segmentation_frame is not None and d.protocol == "hl7",
        "an HL7 message holds no segmentation",
    ),
    ("segmentation_frame", lambda d: d.frame not in FRAMES, f"must be one of {', '.join(FRAMES)}"),
    (
        "segmentation_frame",
        lambda d: d.segmentation_frame == "own" and not FRAMED & set(d.kinds),
        "nothing that it gets has a frame; it needs SEG, LABELMAP or HEATMAP among its objects",
    ),
    (
        "explain_unread",
        lambda d: bool(d.explain_unread) and not EXPLAINING & set(d.kinds),
        "only CADSR and SR can say why an exam was not read; add one of them to its objects",
    ),
    ("retract", lambda d: d.retract and d.protocol == "hl7", "a rejection note is a DICOM object; HL7 takes none"),
    (
        "cad",
        lambda d: d.cad != CadProfile() and "CADSR" not in d.kinds,
        "shapes the CADSR, which is not among its objects",
    ),
    (
        "cad.required_at",
        lambda d: _unknown(dict(d.cad.required_at), FINDINGS),
        f"no finding is called {{found}}; known: {', '.join(FINDINGS)}",
    ),
    (
        "cad.required_at",
        lambda d: not all(0 < value < 1 for _, value in d.cad.required_at),
        "probabilities must lie between 0 and 1, ends excluded",
    ),
    ("cad.below", lambda d: d.cad.below not in BELOW, f"must be one of {', '.join(BELOW)}"),
    (
        "cad.below",
        lambda d: d.cad.below != CadProfile().below and not d.cad.required_at,
        "has no effect without required_at: every mark is Presentation Required then",
    ),
    ("cad.exam_value", lambda d: d.cad.exam_value not in EXAM_VALUES, f"must be one of {', '.join(EXAM_VALUES)}"),
)
"""The key, what is wrong with it (true, or in words), and why that cannot work. The first that is wrong is told."""


def is_ae_title(text: str) -> bool:
    """1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2)."""
    return 1 <= len(text.strip()) <= 16 and text.isascii() and text.isprintable() and "\\" not in text


def is_port(number: int) -> bool:
    """A TCP port."""
    return 1 <= number <= 65535
