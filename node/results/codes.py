"""Coded concepts that results use (PS3.16), and the private ones, designator 99MCN."""

from pydicom import Dataset

from node.mammography.findings import Code
from node.mammography.views import Laterality, ViewPosition

PRIVATE_SCHEME = "99MCN"
PRIVATE_SCHEME_NAME = "mammoclip-node research codes"

SUSPICION_INDEX = Code("SUSPICION_INDEX", PRIVATE_SCHEME, "Suspicion index, not calibrated on patients")
"""NUM in [0, 1]: what a model writes that was calibrated on phantoms alone. No probability of anything."""
REGION_MARKED = Code("REGION_MARKED", PRIVATE_SCHEME, "Region marked at the operating point")
NOT_ASSESSED = Code("NOT_ASSESSED", PRIVATE_SCHEME, "Not assessed")
LOOKED_FOR = Code("LOOKED_FOR", PRIVATE_SCHEME, "Looked for")

PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
PEAK_VALUE = Code("126031", "DCM", "Peak Value Within ROI")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
MAMMOGRAPHY = Code("MG", "DCM", "Mammography")
IMAGE_LATERALITY = Code("111027", "DCM", "Image Laterality")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
BREAST = Code("76752008", "SCT", "Breast")
BILATERAL = Code("51440002", "SCT", "Bilateral")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
OUTLINE = Code("111041", "DCM", "Outline")
CENTRE = Code("111010", "DCM", "Center")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
NO_UNITS = Code("1", "UCUM", "no units")
PERCENT = Code("%", "UCUM", "Percent")

SIDES: dict[Laterality, Code] = {
    Laterality.RIGHT: Code("24028007", "SCT", "Right"),
    Laterality.LEFT: Code("7771000", "SCT", "Left"),
}
"""CID 244."""

VIEWS: dict[ViewPosition, Code] = {
    ViewPosition.CC: Code("399162004", "SCT", "cranio-caudal"),
    ViewPosition.MLO: Code("399368009", "SCT", "medio-lateral oblique"),
}
"""CID 4014, the views of STANDARD_VIEWS: no other is read."""


def code_item(code: Code) -> Dataset:
    """One item of a Code Sequence (PS3.3 section 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def private_scheme_item() -> Dataset:
    """The item of Coding Scheme Identification Sequence (0008,0110) that says whose 99MCN is (PS3.3 C.12.1.1.7)."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = PRIVATE_SCHEME_NAME
    return item
