"""The HL7 message: read back by another library than the one that the gate checks it with."""

from dataclasses import replace

import hl7
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from node.mammography.findings import BreastDensity
from node.mammography.views import STANDARD_VIEWS, View
from node.results import gate, message, words
from node.results.reading import EncodedResult, Outcome, Reading
from tests.node.results import exams
from tests.node.results.test_words import unread


def sources(**changes: object) -> dict[View, Dataset]:
    return {view: exams.source(view, **changes) for view in STANDARD_VIEWS}


def encoded(headers: dict[View, Dataset] | None = None, reading: Reading | None = None) -> EncodedResult:
    headers = headers or sources()
    return message.encode(reading or exams.reading(headers=headers), headers)


def parsed(result: EncodedResult) -> hl7.Message:
    return hl7.parse(result.content.decode("utf-8"))


def observations(result: EncodedResult, code: str) -> list[hl7.Segment]:
    return [segment for segment in parsed(result).segments("OBX") if str(segment[3][0][0]) == code]


def test_it_passes_the_gate_and_states_what_it_is() -> None:
    result = encoded()
    assert gate.problem_of(result) == ""
    header = parsed(result).segment("MSH")
    assert [str(header[number]) for number in (9, 11, 12, 18)] == ["ORU^R01^ORU_R01", "P", "2.5.1", "UNICODE UTF-8"]
    assert (result.sop_class_uid, result.transfer_syntax_uid, result.kind.value) == ("", "", "ORU")


def test_the_same_reading_gives_the_same_bytes_and_another_one_another_control_id() -> None:
    assert encoded().content == encoded().content
    headers = sources()
    later = encoded(headers, exams.reading(headers=headers, number=2))
    first, second = (str(parsed(result).segment("MSH")[10]) for result in (encoded(), later))
    assert first != second
    assert len(first) == len(second) == 20


def test_the_patient_is_the_source_s() -> None:
    result = encoded(sources(IssuerOfPatientID="Hospital A"))
    patient = parsed(result).segment("PID")
    assert [str(patient[number]) for number in (3, 5, 7, 8)] == [
        "P-000123^^^Hospital A", "Müller^Änne^^^^^L", "19610504", "F",
    ]  # fmt: skip


def test_an_issuer_with_a_universal_id() -> None:
    qualifiers = Dataset()
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = "1.2.3.4", "ISO"
    result = encoded(sources(IssuerOfPatientID="A", IssuerOfPatientIDQualifiersSequence=Sequence([qualifiers])))
    assert str(parsed(result).segment("PID")[3]) == "P-000123^^^A&1.2.3.4&ISO"
    assert gate.problem_of(result) == ""


def test_prefix_and_suffix_change_places_and_other_scripts_repeat() -> None:
    result = encoded(sources(PatientName="Doe^Ann^May^Dr^Jr"))
    assert str(parsed(result).segment("PID")[5]) == "Doe^Ann^May^Jr^Dr^^L"
    result = encoded(sources(SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Hana=山田^花=やまだ^はな"))
    assert str(parsed(result).segment("PID")[5]) == ("Yamada^Hana^^^^^L^A~山田^花^^^^^L^I~やまだ^はな^^^^^L^P")
    assert gate.problem_of(result) == ""


def test_separators_in_values_are_escaped_and_come_back() -> None:
    result = encoded(sources(PatientID="a^b|c&d~e", PatientName="O|Neill^X&Y"))
    found = parsed(result)
    assert found.unescape(str(found.segment("PID")[3])) == "a^b|c&d~e"
    assert found.unescape(str(found.segment("PID")[5][0][0])) == "O|Neill"
    assert gate.problem_of(result) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": ""},
        dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex")),
        dict.fromkeys(("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName")),
        {"PatientID": "P" * 64, "PatientName": "N" * 64},
        {"PatientID": "a\\b", "PatientName": "c\\d"},
        {"PatientSex": "X", "StudyTime": "1015"},
        {"SpecificCharacterSet": None},
    ],
)
def test_odd_headers_give_valid_messages(changes: dict[str, object]) -> None:
    assert gate.problem_of(encoded(sources(**changes))) == ""


def test_the_order_is_the_study_s() -> None:
    order = parsed(encoded(sources(TimezoneOffsetFromUTC="-0530"))).segment("OBR")
    assert [str(order[number]) for number in (3, 4, 7, 16, 18, 22, 25)] == [
        "A4711", "MG^Mammography^DCM", "20260314101500", "^Weiß^Jörg", "A4711", "20260314070015-0530", "P",
    ]  # fmt: skip


def test_the_procedure_is_the_source_s_where_it_is_coded() -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "MAM2", "99HIS", "Screening"
    assert str(parsed(encoded(sources(ProcedureCodeSequence=Sequence([procedure])))).segment("OBR")[4]) == (
        "MAM2^Screening^99HIS"
    )


def test_values_are_an_index_or_a_probability() -> None:
    index = observations(encoded(), "SUSPICION_INDEX")
    assert [[str(segment[number]) for number in (2, 4, 5, 11)] for segment in index] == [
        ["NM", "exam", "0.8176", "P"],
        ["NM", "right breast", "0.8176", "P"],
        ["NM", "left breast", "0.5987", "P"],
    ]
    assert observations(encoded(), "111047") == []
    headers = sources()
    allowed = encoded(headers, exams.reading(headers=headers, allow_probability=True))
    exam, *_ = observations(allowed, "111047")
    assert [str(exam[number]) for number in (4, 5, 6)] == ["exam", "81.76", "%^Percent^UCUM"]


def test_the_report_stands_there_line_by_line_and_each_lesion_once() -> None:
    headers = sources()
    reading = exams.reading(headers=headers)
    result = encoded(headers, reading)
    lines = [parsed(result).unescape(str(segment[5])) for segment in observations(result, "18782-3")]
    assert lines == list(words.report_lines(reading))
    assert len(observations(result, "121071")) == len(words.lesions(reading))
    (study,) = observations(result, "113014")
    assert str(study[5]) == exams.STUDY


def test_density_where_the_model_gives_it() -> None:
    headers = sources()
    (density,) = observations(
        encoded(headers, exams.reading(headers=headers, density=BreastDensity("C", 0.6))), "129715009"
    )
    assert str(density[5]) == "C"


@pytest.mark.parametrize("outcome", [Outcome.NOT_ATTEMPTED, Outcome.FAILED, Outcome.REFUSED])
def test_an_exam_that_was_not_read_says_why_and_gives_no_value(outcome: Outcome) -> None:
    headers = sources()
    result = encoded(headers, unread(exams.reading(headers=headers), outcome, "views missing: LMLO"))
    assert gate.problem_of(result) == ""
    assert str(parsed(result).segment("OBR")[25]) == "X"
    assert {str(segment[11]) for segment in parsed(result).segments("OBX")} == {"X"}
    (reason,) = observations(result, "NOT_READ")
    assert str(reason[5]) == "views missing: LMLO"
    assert observations(result, "SUSPICION_INDEX") == observations(result, "121071") == []


def test_a_reason_of_many_words_passes_the_gate_that_a_text_without_end_does_not_pass() -> None:
    headers = sources()
    reason = "; ".join(f"{view.name}: constant image, every pixel has the same value" for view in STANDARD_VIEWS)
    result = encoded(headers, unread(exams.reading(headers=headers), Outcome.REFUSED, f"{reason}, {reason}"))
    assert len(reason) > 199
    assert gate.problem_of(result) == ""
    endless = result.content.replace(reason.encode(), b"a" * 65537)
    assert gate.problem_of(replace(result, content=endless)) == "an OBX has a value that is not of its value type"


GOOD = encoded().content.decode("utf-8")


@pytest.mark.parametrize(
    ("wrong", "words_of_it"),
    [
        (GOOD.replace("\rPID|", "\rZID|"), "segments are not MSH, PID"),
        (GOOD.replace("\rORC|RE||A4711", ""), "segments are not"),
        (GOOD.replace("|2.5.1|", "|2.3|"), "MSH does not state"),
        (GOOD.replace("||UNICODE UTF-8", "||ASCII"), "MSH does not state"),
        (GOOD.rstrip("\r"), "end with a carriage return"),
        (GOOD.replace("OBX|2|", "OBX|3|"), "numbered"),
        (GOOD.replace("|0.8176|", "||"), "no value"),
        (GOOD.replace("|0.8176|", "|high|"), "not of its value type"),
        (GOOD.replace("PID|1||P-000123|", "PID|1|||"), "breaks HL7"),
        (GOOD.replace("OBX|2|NM|", "OBX|2|QQ|"), "not of its value type"),
    ],
)
def test_the_gate_names_what_is_wrong(wrong: str, words_of_it: str) -> None:
    assert wrong != GOOD
    assert words_of_it in gate.problem_of(replace(encoded(), content=wrong.encode()))


def test_the_gate_refuses_what_is_not_utf_8() -> None:
    assert gate.problem_of(replace(encoded(), content=GOOD.encode("latin-1"))) == "the message is not UTF-8"
