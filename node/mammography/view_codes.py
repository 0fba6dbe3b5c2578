"""What the standard tabulates about mammographic views: CID 4014, CID 4015, Image Type, SOP classes."""

from dataclasses import dataclass

from pydicom import Dataset

CODING_SCHEMES: dict[str, str] = {
    "SCT": "SNOMED CT",
    "SRT": "SNOMED-RT, as the standard had it until 2018",
    "SNM3": "SNOMED version 3, the same values as SRT (PS3.16 section 8)",
    "99SDM": "SNOMED DICOM Microglossary, the same values as SRT (PS3.16 section 8)",
}
"""Coding Scheme Designators in which views and their modifiers are coded."""

_RT_SCHEMES = frozenset({"SRT", "SNM3", "99SDM"})


@dataclass(frozen=True, slots=True)
class Codes:
    """One concept: Code Value in SNOMED CT, and its values in SNOMED-RT (SRT, SNM3, 99SDM), outdated ones included."""

    sct: str
    rt: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Modifier:
    """One row of CID 4015. `letters`: ACR MQCM letters beside a view's name. `excludes`: not of a screening set."""

    codes: Codes
    letters: tuple[str, ...]
    excludes: bool


VIEWS: dict[str, Codes] = {
    "CC": Codes("399162004", ("R-10242",)),
    "MLO": Codes("399368009", ("R-10226",)),
    "ML": Codes("399260004", ("R-10224",)),
    "LM": Codes("399352003", ("R-10228",)),
    "LMO": Codes("399099002", ("R-10230",)),
    "FB": Codes("399196006", ("R-10244",)),
    "SIO": Codes("399188001", ("R-102D0",)),
    "ISO": Codes("441555000", ("R-40AAA",)),
    "XCCL": Codes("399192008", ("R-1024A", "Y-X1770")),
    "XCCM": Codes("399101009", ("R-1024B", "Y-X1771")),
}
"""CID 4014 View for Mammography by View Position's defined term; Y-X177x are its deprecated codes."""

SPECIMEN = Codes("127457009", ("G-8310",))
"""CID 4014: tissue specimen from breast; no view of a breast."""

MODIFIERS: dict[str, Modifier] = {
    "magnification": Modifier(Codes("399163009", ("R-102D6",)), ("M",), True),
    "spot compression": Modifier(Codes("399055006", ("R-102D7",)), ("S",), True),
    "tangential": Modifier(Codes("399110001", ("R-102C2",)), ("TAN",), True),
    "cleavage": Modifier(Codes("399161006", ("R-102D2",)), ("CV",), True),
    "axillary tail": Modifier(Codes("399011000", ("R-102D1",)), ("AT",), True),
    "axillary tissue": Modifier(Codes("442580003", ("R-40AB2",)), ("AX",), True),
    "rolled lateral": Modifier(Codes("399197002", ("R-102D3",)), ("RL",), True),
    "rolled medial": Modifier(Codes("399226006", ("R-102D4",)), ("RM",), True),
    "rolled inferior": Modifier(Codes("414493004", ("R-102CA",)), ("RI",), True),
    "rolled superior": Modifier(Codes("415670009", ("R-102C9",)), ("RS",), True),
    "infra-mammary fold": Modifier(Codes("442593008", ("R-40ABE",)), ("IMF",), True),
    "anterior compression": Modifier(Codes("441752004", ("P2-00161",)), ("AC",), True),
    "implant displaced": Modifier(Codes("399209000", ("R-102D5",)), ("ID",), False),
    "nipple in profile": Modifier(Codes("442581004", ("R-40AB3",)), ("NP",), False),
}
"""CID 4015 View Modifier for Mammography, by its meaning in lower case."""

NOT_OF_A_BREAST = frozenset({"AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO"})
"""View Position of CR images of the body (PS3.3 C.8.1.1): a chest radiograph that calls itself a mammogram."""

EXCLUDING_IMAGE_TYPES: dict[str, str] = {
    "STEREO": "stereotactic",
    "STEREO_SCOUT": "stereotactic",
    "STEREO_MINUS": "stereotactic",
    "STEREO_PLUS": "stereotactic",
    "PREFIRE": "biopsy",
    "PREFIRE_MINUS": "biopsy",
    "PREFIRE_PLUS": "biopsy",
    "POSTFIRE": "biopsy",
    "POSTFIRE_MINUS": "biopsy",
    "POSTFIRE_PLUS": "biopsy",
    "POSTBIOPSY": "biopsy",
    "POSTBIOPSY_MINUS": "biopsy",
    "POSTBIOPSY_PLUS": "biopsy",
    "POSTMARKER": "biopsy",
    "POSTMARKER_MINUS": "biopsy",
    "POSTMARKER_PLUS": "biopsy",
    "TOMO_SCOUT": "biopsy",
    "SUBTRACTION": "contrast subtraction",
    "HIGH_ENERGY": "contrast high energy",
}
"""Values 3 to 5 of Image Type that no screening image has (PS3.3 tables C.8-74a, C.8-74d, C.8-74e, C.8.21.6-1a)."""

SYNTHETIC_IMAGE_TYPES: dict[str, str] = {
    "GENERATED_2D": "PS3.3 table C.8-74d: mathematically generated 2D view (Hologic C-View, and all who follow it)",
    "SYNTHETIC_2D": "written by some reconstruction workstations in place of the defined term",
    "SYNTHESIZED_2D": "written by some reconstruction workstations in place of the defined term",
    "C-VIEW": "Hologic's product, where a PACS wrote it into Image Type",
    "S-VIEW": "Fujifilm's product, where a PACS wrote it into Image Type",
    "INSIGHT": "Siemens' product Insight 2D",
    "INSIGHT_2D": "Siemens' product Insight 2D",
    "V-PREVIEW": "GE's product",
}
"""Values of Image Type that say the 2D image was computed, with the reason for each."""

SYNTHETIC_PRODUCTS: tuple[str, ...] = (
    "C-VIEW",
    "CVIEW",
    "INTELLIGENT ?2D",
    "S-VIEW",
    "INSIGHT ?2D",
    "V-PREVIEW",
    "G-VIEW",
    "SYNTHETIC",
    "SYNTHESI[SZ]ED",
)
"""Patterns of products' names in Series Description and the like of DERIVED images, where Image Type says nothing:
Hologic, Fujifilm, Siemens, GE, IMS Giotto."""

TOMOSYNTHESIS_SOP_CLASSES: dict[str, str] = {
    "1.2.840.10008.5.1.4.1.1.13.1.3": "Breast Tomosynthesis Image Storage",
    "1.2.840.10008.5.1.4.1.1.13.1.4": "Breast Projection X-Ray Image Storage - For Presentation",
    "1.2.840.10008.5.1.4.1.1.13.1.5": "Breast Projection X-Ray Image Storage - For Processing",
}


def is_coded(item: Dataset, codes: Codes) -> bool:
    """Does an item of a code sequence (PS3.3 section 8) mean this concept, in any scheme of CODING_SCHEMES?"""
    value = str(item.get("CodeValue", "")).strip()
    scheme = str(item.get("CodingSchemeDesignator", "")).strip().upper()
    return (scheme == "SCT" and value == codes.sct) or (scheme in _RT_SCHEMES and value.upper() in codes.rt)
