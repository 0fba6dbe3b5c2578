"""TID 1500, Measurement Report, and TID 2010, Key Object Selection, and what they include (PS3.16 annex A): extensible.

Where the standard leaves a row to the user and this node always writes it (tracking, procedure, observer), it is asked
for here. What stands outside the tables may be there under another name.
"""

from node.results.gate.rows import Condition, Conditions, Row, Template, has, lacks
from node.results.gate.tree import Item

_REJECTED, _QUALITY_ISSUE = "113001", "113010"


def _template(*rows: Row) -> Template:
    return Template(rows, extensible=True, ordered=False)


def _lacks_image_and_composite(item: Item) -> bool:
    return not any(child.value_type in ("IMAGE", "COMPOSITE") for child in item.children)


TEMPLATES: dict[str, Template] = {
    "TID 1500": _template(
        Row("", "", "CONTAINER", "CID 7021", "1", "M"),
        Row(">", "HAS CONCEPT MOD", "INCLUDE", "TID 1204", "1", "M"),
        Row(">", "HAS OBS CONTEXT", "INCLUDE", "TID 1001", "1", "M"),
        Row(">", "HAS CONCEPT MOD", "CODE", "121058 DCM Procedure reported", "1-n", "M", values="CID 100"),
        Row(">", "CONTAINS", "INCLUDE", "TID 1600", "1", "M"),
        Row(">", "CONTAINS", "CONTAINER", "126010 DCM Imaging Measurements", "1", "MC", "no evaluations"),
        Row(">>", "CONTAINS", "INCLUDE", "TID 1501", "1-n", "U"),
        Row(">", "CONTAINS", "CONTAINER", "C0034375 UMLS Qualitative Evaluations", "1", "MC", "no measurements"),
        Row(">>", "CONTAINS", "CODE", "", "1-n", "U"),
        Row(">>", "CONTAINS", "TEXT", "", "1-n", "U"),
    ),
    "TID 1204": _template(
        Row("", "", "CODE", "121049 DCM Language of Content Item and Descendants", "1", "M"),
        Row(">", "HAS CONCEPT MOD", "CODE", "121046 DCM Country of Language", "1", "U"),
    ),
    "TID 1001": _template(
        Row("", "", "CODE", "121005 DCM Observer Type", "1", "M", values="121007 DCM Device"),
        Row("", "", "UIDREF", "121012 DCM Device Observer UID", "1", "M"),
        Row("", "", "TEXT", "121013 DCM Device Observer Name", "1", "U"),
        Row("", "", "TEXT", "121014 DCM Device Observer Manufacturer", "1", "U"),
        Row("", "", "TEXT", "121015 DCM Device Observer Model Name", "1", "U"),
        Row("", "", "TEXT", "121016 DCM Device Observer Serial Number", "1", "U"),
    ),
    "TID 1501": _template(
        Row("", "", "CONTAINER", "125007 DCM Measurement Group", "1", "M"),
        Row(">", "HAS OBS CONTEXT", "TEXT", "112039 DCM Tracking Identifier", "1", "M"),
        Row(">", "HAS OBS CONTEXT", "UIDREF", "112040 DCM Tracking Unique Identifier", "1", "M"),
        Row(">", "CONTAINS", "CODE", "276214006 SCT Finding category", "1", "U"),
        Row(">", "CONTAINS", "CODE", "121071 DCM Finding", "1", "U"),
        Row(">", "CONTAINS", "CODE", "130400 DCM Geometric purpose of region", "1", "U", values="CID 219"),
        Row(">", "CONTAINS", "SCOORD", "111030 DCM Image Region", "1-n", "UC", "no segmentation"),
        Row(">>", "SELECTED FROM", "IMAGE", "", "1", "M"),
        Row(">", "CONTAINS", "IMAGE", "121214 DCM Referenced Segmentation Frame", "1", "UC", "no region"),
        Row(">", "CONTAINS", "IMAGE", "121191 DCM Referenced Segment", "1", "UC", "no region"),
        Row(">", "CONTAINS", "IMAGE", "121233 DCM Source image for segmentation", "1-n", "MC", "segmentation"),
        Row(">", "HAS CONCEPT MOD", "CODE", "370129005 SCT Measurement Method", "1", "U"),
        Row(">", "HAS CONCEPT MOD", "CODE", "363698007 SCT Finding Site", "1-n", "U"),
        Row(">>", "HAS CONCEPT MOD", "CODE", "272741003 SCT Laterality", "1", "U", values="CID 244"),
        Row(">>", "HAS CONCEPT MOD", "CODE", "106233006 SCT Topographical modifier", "1", "U"),
        Row(">", "HAS CONCEPT MOD", "INCLUDE", "TID 4019", "1", "U"),
        Row(">", "CONTAINS", "NUM", "", "1-n", "U"),
        Row(">", "CONTAINS", "CODE", "", "1-n", "U"),
        Row(">", "CONTAINS", "IMAGE", "", "1-n", "U"),
    ),
    "TID 1600": _template(
        Row("", "", "CONTAINER", "111028 DCM Image Library", "1", "M"),
        Row(">", "CONTAINS", "CONTAINER", "126200 DCM Image Library Group", "1-n", "M"),
        Row(">>", "CONTAINS", "INCLUDE", "TID 1601", "1-n", "M"),
    ),
    "TID 1601": _template(
        Row("", "", "IMAGE", "", "1", "M"),
        Row(">", "HAS ACQ CONTEXT", "CODE", "121139 DCM Modality", "1", "M", values="CID 29"),
        Row(">", "HAS ACQ CONTEXT", "CODE", "111027 DCM Image Laterality", "1", "M", values="CID 244"),
        Row(">", "HAS ACQ CONTEXT", "CODE", "111031 DCM Image View", "1", "M", values="CID 4014"),
        Row(">", "HAS ACQ CONTEXT", "TEXT", "111044 DCM Patient Orientation Row", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "TEXT", "111043 DCM Patient Orientation Column", "1", "U"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "111026 DCM Horizontal Pixel Spacing", "1", "U", values="mm"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "111066 DCM Vertical Pixel Spacing", "1", "U", values="mm"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "110910 DCM Pixel Data Rows", "1", "M", values="{pixels}"),
        Row(">", "HAS ACQ CONTEXT", "NUM", "110911 DCM Pixel Data Columns", "1", "M", values="{pixels}"),
    ),
    "TID 4019": _template(
        Row("", "", "TEXT", "111001 DCM Algorithm Name", "1", "M"),
        Row("", "", "TEXT", "111003 DCM Algorithm Version", "1", "M"),
        Row("", "", "TEXT", "111002 DCM Algorithm Parameters", "1-n", "U"),
    ),
    "TID 2010": _template(
        Row("", "", "CONTAINER", "CID 7010", "1", "M"),
        Row(">", "HAS CONCEPT MOD", "CODE", "113011 DCM Document Title Modifier", "1-n", "MC", "rejection", "CID 7011"),
        Row(">", "HAS CONCEPT MOD", "INCLUDE", "TID 1204", "1", "U"),
        Row(">", "HAS OBS CONTEXT", "INCLUDE", "TID 1001", "1", "U"),
        Row(">", "CONTAINS", "TEXT", "113012 DCM Key Object Description", "1", "U"),
        Row(">", "CONTAINS", "IMAGE", "", "1-n", "MC", "nothing else named"),
        Row(">", "CONTAINS", "COMPOSITE", "", "1-n", "U"),
    ),
}

CONDITIONS: Conditions = {
    "no evaluations": Condition(lacks("C0034375"), otherwise=True),
    "no measurements": Condition(lacks("126010"), otherwise=True),
    "no segmentation": Condition(lacks("121214", "121191")),
    "no region": Condition(lacks("111030")),
    "segmentation": Condition(has("121214", "121191")),
    "rejection": Condition(lambda item: item.name[0] in (_REJECTED, _QUALITY_ISSUE), otherwise=True),
    "nothing else named": Condition(_lacks_image_and_composite, otherwise=True),
}
