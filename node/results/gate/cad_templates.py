"""TID 4000, Mammography CAD Document Root, and what it includes (PS3.16 annex A): non-extensible, order significant.

Rows that only refer to priors or to tomosynthesis are left out: what the node never writes may not stand there.
"""

from node.results.gate.rows import Condition, Conditions, Row, Template, has, is_any, is_none, lacks
from node.results.gate.tree import Item

_COMPOSITION, _GEOMETRY, _NIPPLE = "129715009", "111100", "24142002"
_SELECTED_REGION, _QUALITY, _NON_LESION = "111099", "111101", "111102"
_CLUSTER, _CALCIFICATION, _DENSITY = "129769006", "129770007", "129793001"
_BODY = ("111005", "111023", "111033", "111053", "111055", "111054")
_IMPRESSIONS = ("111005", "111023", "111033")


def _count(item: Item, code: str) -> int:
    return sum(child.name[0] == code for child in item.children)


def _refers_to_an_image(item: Item) -> bool:
    return any(child.target for child in item.children)


def _template(*rows: Row) -> Template:
    return Template(rows, extensible=False, ordered=True)


_EXAM_VALUES = tuple(
    row
    for concept, unit in (("111047 DCM Probability of cancer", "%"), ("246262008 SCT Score", "1"))
    for row in (
        Row(">", "HAS PROPERTIES", "NUM", concept, "1-n", "U", values=unit),
        Row(">>", "HAS CONCEPT MOD", "TEXT", "121050 DCM Equivalent Meaning of Concept Name", "1", "U"),
        Row(">>", "HAS CONCEPT MOD", "CODE", "272741003 SCT Laterality", "1", "M", values="CID 6022"),
    )
)
"""No rows of TID 4001: what a workstation's profile (exam_value = "number") asks for, outside the template."""

TEMPLATES: dict[str, Template] = {
    "TID 4000": _template(
        Row("", "", "CONTAINER", "111036 DCM Mammography CAD Report", "1", "M"),
        Row(">", "HAS CONCEPT MOD", "INCLUDE", "TID 1204", "1", "M"),
        Row(">", "CONTAINS", "CONTAINER", "111028 DCM Image Library", "1", "M"),
        Row(">>", "CONTAINS", "INCLUDE", "TID 4020", "1-n", "M"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4001", "1", "M"),
        Row(">", "CONTAINS", "CODE", "111064 DCM Summary of Detections", "1", "M", values="CID 6042"),
        Row(">>", "INFERRED FROM", "INCLUDE", "TID 4015", "1", "MC", "attempted"),
        Row(">", "CONTAINS", "CODE", "111065 DCM Summary of Analyses", "1", "M", values="CID 6042"),
        Row(">>", "INFERRED FROM", "INCLUDE", "TID 4016", "1", "MC", "attempted"),
    ),
    "TID 1204": _template(
        Row("", "HAS CONCEPT MOD", "CODE", "121049 DCM Language of Content Item and Descendants", "1", "M"),
        Row(">", "HAS CONCEPT MOD", "CODE", "121046 DCM Country of Language", "1", "U"),
    ),
    "TID 4001": _template(
        Row("", "", "CODE", "111017 DCM CAD Processing and Findings Summary", "1", "M", values="CID 6047"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4002", "1", "U"),
        *_EXAM_VALUES,
        Row(">", "INFERRED FROM", "INCLUDE", "TID 4003", "1-n", "MC", "summary tells of findings"),
    ),
    "TID 4002": _template(
        Row("", "", "CODE", "111005 DCM Assessment Category", "1-n", "MC", "no other body", "CID 6026"),
        Row(">", "HAS CONCEPT MOD", "CODE", "272741003 SCT Laterality", "1", "U", values="CID 6022"),
        Row("", "", "CODE", "111023 DCM Differential Diagnosis/Impression", "1-n", "MC", "no other body", "CID 6002"),
        Row(">", "HAS CONCEPT MOD", "CODE", "272741003 SCT Laterality", "1", "U", values="CID 6022"),
        Row("", "", "TEXT", "111033 DCM Impression Description", "1", "MC", "no other body"),
        Row("", "", "CODE", "111053 DCM Recommended Follow-up", "1-n", "MC", "no other body", "CID 6028"),
        Row(">", "HAS CONCEPT MOD", "CODE", "272741003 SCT Laterality", "1", "U", values="CID 6022"),
        Row("", "", "NUM", "111055 DCM Recommended Follow-up Interval", "1", "MC", "no other body"),
        Row("", "", "DATE", "111054 DCM Recommended Follow-up Date", "1", "MC", "no other body"),
        Row("", "", "NUM", "111013 DCM Certainty of impression", "1", "UC", "impression", "%"),
        Row("", "", "INCLUDE", "TID 4019", "1-n", "M"),
    ),
    "TID 4003": _template(
        Row("", "", "CONTAINER", "111034 DCM Individual Impression/Recommendation", "1", "M"),
        Row(">", "HAS CONCEPT MOD", "CODE", "111056 DCM Rendering Intent", "1", "M", values="CID 6034"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4002", "1", "U"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4004", "1-n", "MC", "no single image finding"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4006", "1-n", "MC", "no composite feature"),
    ),
    "TID 4004": _template(
        Row("", "", "CODE", "111015 DCM Composite Feature", "1", "M", values="CID 6016"),
        Row(">", "HAS CONCEPT MOD", "CODE", "111056 DCM Rendering Intent", "1", "M", values="CID 6034"),
        Row(">", "HAS OBS CONTEXT", "INCLUDE", "TID 4108", "1", "U"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4005", "1", "U"),
        Row(">", "INFERRED FROM", "INCLUDE", "TID 4004", "1-n", "MC", "fewer than two single image findings"),
        Row(">", "INFERRED FROM", "INCLUDE", "TID 4006", "1-n", "MC", "fewer than two composite features"),
    ),
    "TID 4005": _template(
        Row("", "", "CODE", "111016 DCM Composite type", "1", "M", values="CID 6035"),
        Row("", "", "CODE", "111057 DCM Scope of Feature", "1", "M", values="CID 6036"),
        Row("", "", "INCLUDE", "TID 4019", "1", "M"),
        Row("", "", "NUM", "111011 DCM Certainty of Feature", "1", "U", values="%"),
        Row("", "", "NUM", "111047 DCM Probability of cancer", "1", "UC", "lesion", "%"),
    ),
    "TID 4006": _template(
        Row("", "", "CODE", "111059 DCM Single Image Finding", "1", "M", values="CID 6014"),
        Row(">", "HAS CONCEPT MOD", "CODE", "111056 DCM Rendering Intent", "1", "M", values="CID 6034"),
        Row(">>", "HAS PROPERTIES", "NUM", "111071 DCM CAD Operating Point", "1", "UC", "optional", "{1:n}"),
        Row(">", "HAS OBS CONTEXT", "INCLUDE", "TID 4108", "1", "U"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4019", "1", "M"),
        Row(">", "HAS PROPERTIES", "NUM", "111012 DCM Certainty of Finding", "1", "U", values="%"),
        Row(">", "HAS PROPERTIES", "NUM", "111047 DCM Probability of cancer", "1", "UC", "suspicious finding", "%"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4021", "1", "MC", "finding with a place"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4007", "1", "MC", "composition"),
        Row(">", "R-INFERRED FROM", "CODE", "111059 DCM Single Image Finding", "1-n", "UC", "composition"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4010", "1", "UC", "calcification cluster"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4011", "1", "UC", "density"),
        Row(">", "HAS PROPERTIES", "CODE", "111297 DCM Nipple Characteristic", "1", "UC", "nipple", "CID 6039"),
        Row(">", "R-INFERRED FROM", "IMAGE", "", "1", "UC", "quality of a whole image"),
        Row(">", "HAS PROPERTIES", "SCOORD", "111030 DCM Image Region", "1-n", "UC", "quality of a region"),
        Row(">>", "R-SELECTED FROM", "IMAGE", "", "1", "M"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4014", "1-n", "MC", "quality"),
        Row(">", "INFERRED FROM", "INCLUDE", "TID 4006", "1-n", "UC", "calcification cluster"),
    ),
    "TID 4007": _template(
        Row("", "", "CODE", "129715009 SCT Breast composition", "1", "MC", "no percentage", "CID 6000"),
        Row("", "", "NUM", "111046 DCM Percent Fibroglandular Tissue", "1", "MC", "no category", "%"),
    ),
    "TID 4010": _template(
        Row("", "", "CODE", "111009 DCM Calcification Type", "1-n", "U", values="CID 6010"),
        Row("", "", "CODE", "111008 DCM Calcification Distribution", "1", "U", values="CID 6012"),
        Row("", "", "NUM", "111038 DCM Number of calcifications", "1", "U", values="1"),
    ),
    "TID 4011": _template(
        Row("", "", "CODE", "111035 DCM Lesion Density", "1", "U", values="CID 6008"),
        Row("", "", "CODE", "107644003 SCT Shape", "1", "U", values="CID 6004"),
        Row("", "", "CODE", "111037 DCM Margins", "1-n", "U", values="CID 6006"),
    ),
    "TID 4014": _template(
        Row("", "", "CODE", "111052 DCM Quality Finding", "1", "M", values="CID 6041"),
        Row(">", "HAS PROPERTIES", "CODE", "111050 DCM Quality Assessment", "1", "U", values="CID 6044"),
        Row(">", "HAS PROPERTIES", "CODE", "111051 DCM Quality Control Standard", "1", "UC", "assessed", "CID 6045"),
        Row(">", "HAS PROPERTIES", "NUM", "111029 DCM Image Quality Rating", "1", "U", values="{0:100}"),
    ),
    "TID 4015": _template(
        Row("", "", "CONTAINER", "111063 DCM Successful Detections", "1", "MC", "some succeeded"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4017", "1-n", "M"),
        Row("", "", "CONTAINER", "111025 DCM Failed Detections", "1", "MC", "some failed"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4017", "1-n", "M"),
    ),
    "TID 4016": _template(
        Row("", "", "CONTAINER", "111062 DCM Successful Analyses", "1", "MC", "some succeeded"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4018", "1-n", "M"),
        Row("", "", "CONTAINER", "111024 DCM Failed Analyses", "1", "MC", "some failed"),
        Row(">", "CONTAINS", "INCLUDE", "TID 4018", "1-n", "M"),
    ),
    "TID 4017": _template(
        Row("", "", "CODE", "111022 DCM Detection Performed", "1", "M", values="CID 6014"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4019", "1", "M"),
        Row(">", "R-HAS PROPERTIES", "IMAGE", "", "1-n", "M"),
        Row(">", "", "INCLUDE", "TID 4023", "1", "U"),
    ),
    "TID 4018": _template(
        Row("", "", "CODE", "111004 DCM Analysis Performed", "1", "M", values="CID 6043"),
        Row(">", "HAS PROPERTIES", "INCLUDE", "TID 4019", "1", "M"),
        Row(">", "R-HAS PROPERTIES", "IMAGE", "", "1-n", "M"),
        Row(">", "", "INCLUDE", "TID 4023", "1", "U"),
    ),
    "TID 4019": _template(
        Row("", "", "TEXT", "111001 DCM Algorithm Name", "1", "M"),
        Row("", "", "TEXT", "111003 DCM Algorithm Version", "1", "M"),
        Row("", "", "TEXT", "111002 DCM Algorithm Parameters", "1-n", "U"),
    ),
    "TID 4020": _template(
        Row("", "", "IMAGE", "", "1", "M"),
        Row(">", "HAS ACQ CONTEXT", "CODE", "111027 DCM Image Laterality", "1", "M", values="CID 6022"),
        Row(">", "HAS ACQ CONTEXT", "CODE", "111031 DCM Image View", "1", "M", values="CID 4014"),
        Row(">>", "HAS CONCEPT MOD", "CODE", "111032 DCM Image View Modifier", "1-n", "U", values="CID 4015"),
        Row(">", "HAS ACQ CONTEXT", "TEXT", "111044 DCM Patient Orientation Row", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "TEXT", "111043 DCM Patient Orientation Column", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "DATE", "111060 DCM Study Date", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "TIME", "111061 DCM Study Time", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "DATE", "111018 DCM Content Date", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "TIME", "111019 DCM Content Time", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "111026 DCM Horizontal Pixel Spacing", "1", "U", values="mm um"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "111066 DCM Vertical Pixel Spacing", "1", "U", values="mm um"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "112011 DCM Positioner Primary Angle", "1", "U", values="deg"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "112012 DCM Positioner Secondary Angle", "1", "U", values="deg"),
    ),
    "TID 4021": _template(
        Row("", "", "SCOORD", "111010 DCM Center", "1", "M", values="POINT"),
        Row(">", "R-SELECTED FROM", "IMAGE", "", "1", "M"),
        Row("", "", "SCOORD", "111041 DCM Outline", "1", "U", values="POLYLINE CIRCLE ELLIPSE"),
        Row(">", "R-SELECTED FROM", "IMAGE", "", "1", "M"),
        Row("", "", "SCOORD", "CID 6166", "1-n", "U"),
        Row(">", "R-SELECTED FROM", "IMAGE", "", "1", "M"),
    ),
    "TID 4023": _template(
        Row("", "HAS PROPERTIES", "NUM", "111072 DCM Maximum CAD Operating Point", "1", "M"),
        Row("", "HAS PROPERTIES", "NUM", "111092 DCM Recommended CAD Operating Point", "1", "U"),
        Row("", "HAS PROPERTIES", "CONTAINER", "111093 DCM Operating Point Table", "1", "U"),
        Row(">", "CONTAINS", "CODE", "122698 DCM X-Concept", "1", "M", values="CID 6048"),
        Row(">", "CONTAINS", "CODE", "122699 DCM Y-Concept", "1", "M", values="CID 6048"),
        Row(">", "CONTAINS", "NUM", "111071 DCM CAD Operating Point", "1-n", "M"),
        Row(">>", "HAS PROPERTIES", "TEXT", "111081 DCM CAD Operating Point Description", "1", "U"),
        Row(">>", "HAS PROPERTIES", "NUM", "", "1", "U"),
        Row(">>", "HAS PROPERTIES", "NUM", "", "1", "U"),
    ),
    "TID 4108": _template(
        Row("", "", "TEXT", "112039 DCM Tracking Identifier", "1", "U"),
        Row("", "", "UIDREF", "112040 DCM Tracking Unique Identifier", "1", "U"),
    ),
}

CONDITIONS: Conditions = {
    "attempted": Condition(is_none("111225")),
    "summary tells of findings": Condition(is_any("111242", "111244"), otherwise=True),
    "no other body": Condition(lacks(*_BODY), otherwise=True),
    "impression": Condition(has(*_IMPRESSIONS)),
    "no single image finding": Condition(lacks("111059"), otherwise=True),
    "no composite feature": Condition(lacks("111015"), otherwise=True),
    "fewer than two single image findings": Condition(lambda item: _count(item, "111059") < 2, otherwise=True),
    "fewer than two composite features": Condition(lambda item: _count(item, "111015") < 2, otherwise=True),
    "lesion": Condition(is_none(_NON_LESION)),
    "optional": Condition(is_any("111151")),
    "suspicious finding": Condition(is_none(_COMPOSITION, _GEOMETRY, _NIPPLE, _SELECTED_REGION, _QUALITY, _NON_LESION)),
    "finding with a place": Condition(is_none(_COMPOSITION, _GEOMETRY, _QUALITY)),
    "composition": Condition(is_any(_COMPOSITION)),
    "calcification cluster": Condition(is_any(_CLUSTER)),
    "density": Condition(is_any(_DENSITY)),
    "nipple": Condition(is_any(_NIPPLE)),
    "quality": Condition(is_any(_QUALITY)),
    "quality of a whole image": Condition(lambda item: item.value[0] == _QUALITY and lacks("111030")(item)),
    "quality of a region": Condition(lambda item: item.value[0] == _QUALITY and not _refers_to_an_image(item)),
    "assessed": Condition(has("111050"), otherwise=True),
    "no percentage": Condition(lacks("111046"), otherwise=True),
    "no category": Condition(lacks(_COMPOSITION), otherwise=True),
    "some succeeded": Condition(is_any("111222", "111223")),
    "some failed": Condition(is_any("111224", "111223")),
}
