"""Coded concepts of the Mammography CAD SR (PS3.16, TID 4000 to 4023 and TID 4108)."""

from node.mammography.findings import Code, FindingKind
from node.mammography.views import Laterality

REPORT = Code("111036", "DCM", "Mammography CAD Report")
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Code("en", "RFC5646", "English")

IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
VIEW_MODIFIER = Code("111032", "DCM", "Image View Modifier")
ORIENTATION_ROW = Code("111044", "DCM", "Patient Orientation Row")
ORIENTATION_COLUMN = Code("111043", "DCM", "Patient Orientation Column")
STUDY_DATE = Code("111060", "DCM", "Study Date")
STUDY_TIME = Code("111061", "DCM", "Study Time")
CONTENT_DATE = Code("111018", "DCM", "Content Date")
CONTENT_TIME = Code("111019", "DCM", "Content Time")
HORIZONTAL_SPACING = Code("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_SPACING = Code("111066", "DCM", "Vertical Pixel Spacing")

FINDINGS_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
IMPRESSION_DESCRIPTION = Code("111033", "DCM", "Impression Description")
INDIVIDUAL_IMPRESSION = Code("111034", "DCM", "Individual Impression/Recommendation")
LATERALITY = Code("272741003", "SCT", "Laterality")

ALL_WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
ALL_WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
SOME_WITHOUT_FINDINGS = Code("111243", "DCM", "Not all algorithms succeeded; without findings")
SOME_WITH_FINDINGS = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")
"""The five of CID 6047."""

RENDERING_INTENT = Code("111056", "DCM", "Rendering Intent")
REQUIRED = Code("111150", "DCM", "Presentation Required: Rendering device is expected to present")
OPTIONAL = Code("111151", "DCM", "Presentation Optional: Rendering device may present")
NOT_SHOWN = Code("111152", "DCM", "Not for Presentation: Rendering device expected not to present")
"""The three of CID 6034."""

COMPOSITE_FEATURE = Code("111015", "DCM", "Composite Feature")
COMPOSITE_TYPE = Code("111016", "DCM", "Composite type")
RELATED_SPATIALLY = Code("111154", "DCM", "Target content items are related spatially")
SCOPE_OF_FEATURE = Code("111057", "DCM", "Scope of Feature")
ON_MULTIPLE_IMAGES = Code("111158", "DCM", "Feature detected on multiple images")

SINGLE_IMAGE_FINDING = Code("111059", "DCM", "Single Image Finding")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
IMAGE_QUALITY = Code("111101", "DCM", "Image Quality")
QUALITY_FINDING = Code("111052", "DCM", "Quality Finding")
BREAST_COMPOSITION = Code("129715009", "SCT", "Breast composition")

DENSITY = Code("129793001", "SCT", "Mammography breast density")
"""CID 6014: a density in one image, be it of a mass or an asymmetry: those two are named of several images alone."""
_CLUSTER = Code("129769006", "SCT", "Calcification Cluster")
_DISTORTION = Code("129792006", "SCT", "Architectural distortion of breast")

SINGLE_IMAGE_FINDINGS: dict[FindingKind, Code] = {
    FindingKind.MASS: DENSITY,
    FindingKind.SUSPICIOUS_CALCIFICATION: _CLUSTER,
    FindingKind.ARCHITECTURAL_DISTORTION: _DISTORTION,
    FindingKind.ASYMMETRY: DENSITY,
}
"""CID 6014 Mammography Single Image Finding."""

COMPOSITE_FEATURES: dict[FindingKind, Code] = {
    FindingKind.MASS: Code("129788004", "SCT", "Mammographic breast mass"),
    FindingKind.SUSPICIOUS_CALCIFICATION: _CLUSTER,
    FindingKind.ARCHITECTURAL_DISTORTION: _DISTORTION,
    FindingKind.ASYMMETRY: DENSITY,
}
"""CID 6016 Mammography Composite Feature. The asymmetries of CID 6017 (129789007, 129790003) are bound to Composite
type "related contra-laterally" (TID 4005 row 1); two views of one breast are not that.
"""

COMPOSITIONS: dict[str, Code] = {
    "A": Code("129716005", "SCT", "Almost entirely fat"),
    "B": Code("129717001", "SCT", "Scattered fibroglandular densities"),
    "C": Code("129718006", "SCT", "Heterogeneously dense"),
    "D": Code("129719003", "SCT", "Extremely dense"),
}
"""CID 6001 Overall Breast Composition from BI-RADS."""

SIDES: dict[Laterality, Code] = {
    Laterality.RIGHT: Code("73056007", "SCT", "Right breast"),
    Laterality.LEFT: Code("80248007", "SCT", "Left breast"),
}
"""CID 6022 Side."""
BOTH_SIDES = Code("63762007", "SCT", "Both breasts")

SUMMARY_OF_DETECTIONS = Code("111064", "DCM", "Summary of Detections")
SUCCESSFUL_DETECTIONS = Code("111063", "DCM", "Successful Detections")
FAILED_DETECTIONS = Code("111025", "DCM", "Failed Detections")
DETECTION_PERFORMED = Code("111022", "DCM", "Detection Performed")
SUMMARY_OF_ANALYSES = Code("111065", "DCM", "Summary of Analyses")
SUCCESSFUL_ANALYSES = Code("111062", "DCM", "Successful Analyses")
FAILED_ANALYSES = Code("111024", "DCM", "Failed Analyses")
ANALYSIS_PERFORMED = Code("111004", "DCM", "Analysis Performed")

SUCCEEDED = Code("111222", "DCM", "Succeeded")
PARTIALLY_SUCCEEDED = Code("111223", "DCM", "Partially Succeeded")
FAILED = Code("111224", "DCM", "Failed")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")
"""The four of CID 6042."""

COLLOCATION_ANALYSIS = Code("133884007", "SCT", "Spatial collocation analysis")
COMPOSITION_ANALYSIS = Code("133890006", "SCT", "Breast composition analysis")
OVERALL_ANALYSIS = Code("111234", "DCM", "Overall Impression / Recommendation Analysis")
"""Of CID 6043 Types of Mammography CAD Analysis."""

OPERATING_POINT = Code("111071", "DCM", "CAD Operating Point")
MAXIMUM_OPERATING_POINT = Code("111072", "DCM", "Maximum CAD Operating Point")
RECOMMENDED_OPERATING_POINT = Code("111092", "DCM", "Recommended CAD Operating Point")
FROM_ONE = Code("{1:n}", "UCUM", "range: 1:n")
FROM_ZERO = Code("{0:n}", "UCUM", "range: 0:n")
ARBITRARY = Code("[arb'U]", "UCUM", "arbitrary unit")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
