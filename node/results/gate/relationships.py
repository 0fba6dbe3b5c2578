"""Which content items may be related how, by IOD (PS3.3 A.35.4, A.35.5, A.35.13), and what a value type holds."""

from dataclasses import dataclass

MAMMOGRAPHY_CAD_SR = "1.2.840.10008.5.1.4.1.1.88.50"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"


@dataclass(frozen=True, slots=True)
class Relation:
    """One row of a table of relationship content constraints; value types as words parted by blanks."""

    sources: str
    relationship: str
    targets: str
    by_reference: bool = False

    def allows(self, source: str, relationship: str, target: str, by_reference: bool) -> bool:
        """Whether the row admits a relationship."""
        return (
            relationship == self.relationship
            and source in self.sources.split()
            and target in self.targets.split()
            and (self.by_reference or not by_reference)
        )


_CONTEXT = "TEXT CODE NUM DATE TIME UIDREF PNAME COMPOSITE"
_ALL = "TEXT CODE NUM DATETIME DATE TIME UIDREF PNAME SCOORD SCOORD3D TCOORD COMPOSITE IMAGE WAVEFORM"

RELATIONS: dict[str, tuple[Relation, ...]] = {
    MAMMOGRAPHY_CAD_SR: (
        Relation("CONTAINER", "CONTAINS", "CODE NUM SCOORD IMAGE CONTAINER TEXT DATE"),
        Relation("TEXT CODE NUM CONTAINER", "HAS OBS CONTEXT", _CONTEXT),
        Relation("IMAGE", "HAS ACQ CONTEXT", "TEXT CODE DATE TIME NUM UIDREF"),
        Relation("CONTAINER CODE COMPOSITE NUM", "HAS CONCEPT MOD", "TEXT CODE"),
        Relation("TEXT CODE NUM", "HAS PROPERTIES", "CONTAINER TEXT CODE NUM DATE IMAGE SCOORD UIDREF", True),
        Relation("CODE NUM", "INFERRED FROM", "CODE NUM SCOORD CONTAINER TEXT IMAGE", True),
        Relation("SCOORD", "SELECTED FROM", "IMAGE", True),
    ),
    COMPREHENSIVE_3D_SR: (
        Relation("CONTAINER", "CONTAINS", _ALL, True),
        Relation("CONTAINER", "CONTAINS", "CONTAINER"),
        Relation("TEXT CODE NUM", "HAS OBS CONTEXT", f"DATETIME {_CONTEXT}", True),
        Relation("CONTAINER", "HAS OBS CONTEXT", f"DATETIME CONTAINER {_CONTEXT}", True),
        Relation(
            "CONTAINER IMAGE WAVEFORM COMPOSITE NUM",
            "HAS ACQ CONTEXT",
            "TEXT CODE NUM DATETIME DATE TIME UIDREF PNAME CONTAINER",
            True,
        ),
        Relation(f"CONTAINER {_ALL}", "HAS CONCEPT MOD", "TEXT CODE"),
        Relation("TEXT CODE NUM", "HAS PROPERTIES", f"CONTAINER {_ALL}", True),
        Relation("PNAME", "HAS PROPERTIES", "TEXT CODE DATETIME DATE TIME UIDREF PNAME", True),
        Relation("TEXT CODE NUM", "INFERRED FROM", f"CONTAINER {_ALL}", True),
        Relation("SCOORD", "SELECTED FROM", "IMAGE", True),
        Relation("TCOORD", "SELECTED FROM", "SCOORD SCOORD3D IMAGE WAVEFORM", True),
    ),
    KEY_OBJECT_SELECTION: (
        Relation("CONTAINER", "CONTAINS", "TEXT IMAGE WAVEFORM COMPOSITE"),
        Relation("CONTAINER", "HAS OBS CONTEXT", "TEXT CODE UIDREF PNAME"),
        Relation("CONTAINER CODE", "HAS CONCEPT MOD", "CODE"),
    ),
}

VALUE_OF: dict[str, tuple[str, ...]] = {
    "TEXT": ("TextValue",),
    "CODE": ("ConceptCodeSequence",),
    "NUM": ("MeasuredValueSequence",),
    "DATETIME": ("DateTime",),
    "DATE": ("Date",),
    "TIME": ("Time",),
    "UIDREF": ("UID",),
    "PNAME": ("PersonName",),
    "SCOORD": ("GraphicType", "GraphicData"),
    "IMAGE": ("ReferencedSOPSequence",),
    "COMPOSITE": ("ReferencedSOPSequence",),
    "CONTAINER": ("ContinuityOfContent",),
}
"""Value type (0040,A040) to the attributes that hold its value (PS3.3 C.17.3.2.1); the node writes no other."""

MAY_LACK_NAME = frozenset({"IMAGE", "COMPOSITE", "SCOORD", "CONTAINER", "WAVEFORM", "TCOORD"})
"""Value types whose Concept Name Code Sequence may be absent below the root."""
POINTS_OF = {"POINT": (1, 1), "MULTIPOINT": (1, None), "POLYLINE": (2, None), "CIRCLE": (2, 2), "ELLIPSE": (4, 4)}
"""Graphic Type (0070,0023) of SCOORD to least and most points (PS3.3 C.18.6.1.2)."""
