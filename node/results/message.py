"""HL7 v2.5.1 ORU^R01: one reading as an unsolicited observation message, for systems that take no DICOM objects.

Encoded as ER7 (chapter 2) in UTF-8. Patient and order come from the images, everything else from the stored reading.
The result status is P, preliminary; X, cannot be obtained, where the exam was not read.
"""

from collections.abc import Mapping

from pydicom import Dataset
from pydicom.multival import MultiValue

from node.mammography.findings import Code
from node.mammography.views import View
from node.results import codes, names, uids, words
from node.results.document import images_known, items_of, patient_and_study, written_at
from node.results.reading import EncodedResult, Outcome, Reading, ResultKind

APPLICATION = "mammoclip-node"
REPORT_TEXT = Code("18782-3", "LN", "Radiology Study observation (narrative)")
STUDY = Code("113014", "DCM", "Study")
FINDING = Code("121071", "DCM", "Finding")
NOT_READ = Code("NOT_READ", "L", "Exam not read")
SUSPICION_INDEX = Code("SUSPICION_INDEX", "L", codes.SUSPICION_INDEX_WORDS)
"""Local codes (table 0396, L): what they mean stands in their text."""
BREAST_COMPOSITION = Code("129715009", "SCT", "Breast composition")

_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": " ", "\n": " "})
"""HL7 v2.5.1 section 2.7."""
_SEXES = {"M": "M", "F": "F", "O": "O"}
"""Patient's Sex (0010,0040) to HL7 table 0001; U, unknown, for anything else."""

UNKNOWN = '""'
"""A required field without a value (section 2.7.1)."""

Field = str
Segment = tuple[Field, ...]


def encode(reading: Reading, sources: Mapping[View, Dataset]) -> EncodedResult:
    """The message of one reading, read or unread. The same reading and sources give the same bytes."""
    source = images_known(reading, sources)[0]
    known = patient_and_study(source)
    uid = uids.instance_uid(reading, ResultKind.MESSAGE, None)
    at = f"{written_at(reading, source):%Y%m%d%H%M%S%z}"
    status = "P" if reading.outcome is Outcome.READ else "X"
    observations = _observations(reading, source)
    segments = [
        _header(control_id(uid), at),
        _patient(known),
        ("ORC", "RE", "", _text(known.AccessionNumber)),
        _order(known, source, at, status),
        *(_observation(number, at, status, reading, *each) for number, each in enumerate(observations, start=1)),
    ]
    content = "".join("|".join(segment).rstrip("|") + "\r" for segment in segments)
    return EncodedResult(ResultKind.MESSAGE, "", uid, "", content.encode("utf-8", "replace"))


def control_id(sop_instance_uid: str) -> str:
    """Message control id (MSH-10, at most 20 characters): 80 bits of the UUID behind a UID of ours."""
    return f"{int(sop_instance_uid.removeprefix('2.25.')):032X}"[:20]


def _text(value: object) -> Field:
    """A value as ER7, escaped, without control characters."""
    text = _one(value).strip()
    return "".join(each for each in text.translate(_ESCAPES) if each.isprintable())


def _one(value: object) -> str:
    """A value as one string: a backslash in the source parts a value in two, for the PACS it is a character."""
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return "" if value is None else str(value)


def _parts(*values: object, by: str = "^") -> Field:
    """Components of one field, those at the end left out where they are empty."""
    return by.join(_text(value) for value in values).rstrip(by)


def _coded(code: Code) -> Field:
    """CE: identifier, text, name of the coding system (table 0396)."""
    return _parts(code.value, code.meaning, code.scheme)


def _header(identifier: str, at: str) -> Segment:
    return ("MSH", "^~\\&", APPLICATION, "", "", "", at, "", "ORU^R01^ORU_R01", identifier, "P", "2.5.1",
            "", "", "", "", "", "UNICODE UTF-8")  # fmt: skip


def _patient(known: Dataset) -> Segment:
    """PID (section 3.4.2)."""
    sex = _SEXES.get(_one(known.get("PatientSex")), "U")
    identifier, name = _identifier(known) or UNKNOWN, _person_names(known.get("PatientName")) or UNKNOWN
    return ("PID", "1", "", identifier, "", name, "", _text(known.get("PatientBirthDate")), sex)


def _identifier(known: Dataset) -> Field:
    """PID-3, CX: the id, and its issuer as HD where the images tell it."""
    qualifiers = (known.get("IssuerOfPatientIDQualifiersSequence") or [Dataset()])[0]
    issuer = _parts(
        known.get("IssuerOfPatientID"),
        qualifiers.get("UniversalEntityID"),
        qualifiers.get("UniversalEntityIDType"),
        by="&",
    )
    return f"{_text(known.get('PatientID'))}^^^{issuer}".rstrip("^")


def _person_names(value: object) -> Field:
    """PID-5, XPN repeated: PN's groups as name representation codes A, I and P; prefix and suffix change places."""
    groups = [*_one(value).split("="), "", ""][:3]
    told = [(code, group) for code, group in zip("AIP", groups, strict=True) if group.strip("^ ")]
    return "~".join(_person_name(group, code if len(told) > 1 else "") for code, group in told)


def _person_name(group: str, representation: str) -> Field:
    family, given, middle, prefix, suffix = [*group.split("^"), "", "", "", "", ""][:5]
    return _parts(family, given, middle, suffix, prefix, "", "L", representation)


def _order(known: Dataset, source: Dataset, at: str, status: str) -> Segment:
    """OBR (section 4.5.3): the accession number is the filler's number and, as IHE has it, OBR-18."""
    accession = _text(known.AccessionNumber)
    segment = [""] * 26
    segment[0], segment[1], segment[3], segment[18] = "OBR", "1", accession, accession
    segment[4] = _coded(_procedure(source))
    segment[7] = _study_time(known)
    segment[16] = _provider(known.get("ReferringPhysicianName"))
    segment[22], segment[24], segment[25] = at, "RAD", status
    return tuple(segment)


def _procedure(source: Dataset) -> Code:
    """The first procedure code of the study, or "Mammography"."""
    for item in items_of(source, "ProcedureCodeSequence"):
        if item.get("CodeValue") and item.get("CodingSchemeDesignator"):
            meaning = str(item.get("CodeMeaning", ""))
            return Code(str(item.CodeValue), str(item.CodingSchemeDesignator), meaning)
    return codes.MAMMOGRAPHY


def _study_time(known: Dataset) -> Field:
    date, time = str(known.get("StudyDate") or ""), str(known.get("StudyTime") or "").partition(".")[0]
    return f"{date}{time}" if date else ""


def _provider(value: object) -> Field:
    """XCN without an identifier."""
    family, given, middle, prefix, suffix = [*_one(value).split("=")[0].split("^"), "", "", "", "", ""][:5]
    return _parts("", family, given, middle, suffix, prefix)


Observation = tuple[str, Code, str, Field, Field]
"""Value type (table 0125), identifier, sub-ID, value, units."""


def _observations(reading: Reading, source: Dataset) -> list[Observation]:
    observations: list[Observation] = [("HD", STUDY, "", _parts(reading.study_instance_uid, "", ""), "")]
    if reading.outcome is not Outcome.READ:
        observations.append(("TX", NOT_READ, "", _text(reading.reason or reading.outcome.value), ""))
    observations += _values(reading)
    if reading.density is not None:
        observations.append(("ST", BREAST_COMPOSITION, "", _text(reading.density.category), ""))
    observations += [
        ("TX", FINDING, str(number), _text(words.finding_sentence(reading, index)), "")
        for number, index in enumerate(words.lesions(reading), start=1)
    ]
    lines = words.report_lines(reading, source)
    return observations + [("TX", REPORT_TEXT, str(number), _text(line), "") for number, line in enumerate(lines, 1)]


def _values(reading: Reading) -> list[Observation]:
    """Exam and breasts: a probability in percent, or the suspicion index."""
    values = [("exam", reading.exam_probability)]
    values += [(f"{names.SIDE_WORDS[each.laterality].lower()} breast", each.probability) for each in reading.breasts]
    is_probability = names.writes_probability(reading)
    meaning = codes.PROBABILITY_OF_CANCER if is_probability else SUSPICION_INDEX
    units = _coded(codes.PERCENT if is_probability else codes.NO_UNITS)
    return [
        ("NM", meaning, part, f"{100.0 * value:.2f}" if is_probability else f"{value:.4f}", units)
        for part, value in values
        if value is not None
    ]


def _observation(
    number: int,
    at: str,
    status: str,
    reading: Reading,
    value_type: str,
    identifier: Code,
    part: str,
    value: Field,
    units: Field,
) -> Segment:
    """OBX (section 7.4.2): status in field 11, time in 14, the algorithm as the method in 17."""
    model = reading.model
    method = _parts("", f"{model.name} {model.version}")
    return ("OBX", str(number), value_type, _coded(identifier), _text(part), value, units, "", "", "", "", status,
            "", "", at, "", "", method)  # fmt: skip
