"""Coded concepts that results use (PS3.16). None is private: a reader would not know it, and dciodvfy warns."""

from pydicom import Dataset

from node.mammography.findings import Code
from node.mammography.views import Laterality, ViewPosition

SUSPICION_INDEX = Code("246262008", "SCT", "Score")
"""NUM in [0, 1]: what a model writes that was calibrated on phantoms alone. No probability of anything."""
SUSPICION_INDEX_WORDS = "Suspicion index, not calibrated on patients"
"""Equivalent Meaning of Concept Name that a NUM called SUSPICION_INDEX carries."""
EQUIVALENT_MEANING = Code("121050", "DCM", "Equivalent Meaning of Concept Name")
REGIONS_MARKED = Code("246206008", "SCT", "Number of lesions")
REGIONS_MARKED_WORDS = "Number of regions marked at the operating point"
LOOKED_FOR = Code("111022", "DCM", "Detection Performed")
NOT_ASSESSED = Code("373121007", "SCT", "Test not done")
SUMMARY = Code("121111", "DCM", "Summary")
WHY_NOT = Code("111033", "DCM", "Impression Description")
"""Why an exam was not read, in words: the Mammography CAD SR has it under the same name."""

PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
PEAK_VALUE = Code("126031", "DCM", "Peak Value Within ROI")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
ONCOLOGY_REPORT = Code("126001", "DCM", "Oncology Measurement Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
MAMMOGRAPHY_PROCEDURE = Code("71651007", "SCT", "Mammography")
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
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Code("en", "RFC5646", "English")
DEPTH = Code("111020", "DCM", "Depth")
COMPOSITE_FEATURE = Code("111015", "DCM", "Composite Feature")
BREAST_COMPOSITION = Code("129715009", "SCT", "Breast composition")
DISTANCE_FROM_NIPPLE = Code("121242", "DCM", "Distance from nipple")
QUALITY_FINDING = Code("111052", "DCM", "Quality Finding")
IMAGE_QUALITY = Code("111101", "DCM", "Image Quality")
SUMMARY_OF_DETECTIONS = Code("111064", "DCM", "Summary of Detections")
FINDINGS_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
ILLUSTRATION_OF_ROI = Code("121200", "DCM", "Illustration of ROI")
SOURCE = Code("260753009", "SCT", "Source")
OF_INTEREST = Code("113000", "DCM", "Of Interest")
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
TITLE_MODIFIER = Code("113011", "DCM", "Document Title Modifier")
KEY_OBJECT_DESCRIPTION = Code("113012", "DCM", "Key Object Description")
MILLIMETRE = Code("mm", "UCUM", "mm")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
BACKGROUND = Code("125040", "DCM", "Background")
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
