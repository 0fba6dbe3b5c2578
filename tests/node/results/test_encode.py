"""Every object: from bytes, valid, the source's patient and study, our equipment, the same twice."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from node.errors import EncodeError
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS
from node.results import structured_report
from node.results.ours import is_ours
from node.results.reading import EncodedResult, Predecessor, ResultKind
from tests.node.results import exams
from tests.node.results.exams import encode_all
from tests.node.results.validators import entity_errors, iod_complaints, iod_errors

PERSONAL = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
)


EVERY_KIND = ("CADSR", "SR", "GSPS", "SC", "SCVIEW", "LABELMAP", "HEATMAP", "KOS")
"""LABELMAP brings SEG for those that refuse it, and then a second report and a second list of key objects."""
WITHOUT_PICTURES = ("CADSR", "SR", "GSPS", "LABELMAP", "HEATMAP", "KOS")
MODALITIES = {
    "CADSR": ("SR", 9003), "SEG": ("SEG", 9001), "LABELMAP": ("SEG", 9007), "HEATMAP": ("SEG", 9006),
    "GSPS": ("PR", 9004), "SC": ("OT", 9002), "SCVIEW": ("OT", 9005), "SR": ("SR", 9000), "KOS": ("KO", 9008),
}  # fmt: skip


def read(result: EncodedResult) -> Dataset:
    return pydicom.dcmread(BytesIO(result.content))


@pytest.fixture(scope="module")
def results() -> tuple[EncodedResult, ...]:
    return encode_all(exams.reading(), exams.sources(), *EVERY_KIND)


def test_how_many_objects_of_each_kind_there_are(results):
    assert Counter(result.kind.value for result in results) == {
        "CADSR": 1, "SR": 2, "GSPS": 4, "SC": 1, "SCVIEW": 4, "SEG": 3, "LABELMAP": 3, "HEATMAP": 3, "KOS": 2,
    }  # fmt: skip


def test_dciodvfy_has_neither_error_nor_warning_about_any_object(results, tmp_path):
    remarks = {result.sop_instance_uid: iod_complaints(result.content, tmp_path) for result in results}
    assert [remark for found in remarks.values() for remark in found] == []
    assert len(remarks) == len(results)


def test_an_exam_without_findings_has_all_but_regions(tmp_path):
    made = encode_all(exams.reading(views=(RCC, LCC, RMLO), lesions={}), exams.sources(), *WITHOUT_PICTURES)
    assert {result.kind.value for result in made} == {"CADSR", "SR", "GSPS", "KOS"}
    assert [iod_complaints(result.content, tmp_path) for result in made] == [[]] * len(made)


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("StudyDate", "DA", b"2026.13.40"),
        ("StudyDate", "DA", b"20261340"),
        ("StudyTime", "TM", b"99"),
        ("PatientBirthDate", "DA", b"unknown "),
        ("PatientAge", "AS", b"45"),
        ("PatientSize", "DS", b"tall"),
        ("ImagerPixelSpacing", "DS", rb"a\b "),
        ("ProcedureCodeSequence", "UN", b"\1\2\3\4"),
        ("OtherPatientIDsSequence", "UN", b"\1\2\3\4"),
        ("LossyImageCompressionRatio", "DS", b"ten "),
    ],
)
def test_values_that_are_none_still_give_valid_objects(keyword, vr, value, tmp_path):
    headers = exams.sources()
    tag = pydicom.datadict.tag_for_keyword(keyword)
    for header in headers.values():
        header.LossyImageCompression = "01"
        header[tag] = RawDataElement(pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True)
    made = encode_all(exams.reading(headers=headers), headers, "CADSR", "SR", "GSPS", "SEG")
    assert [iod_errors(result.content, tmp_path) for result in made] == [[]] * len(made)
    assert all(not read(result).get(keyword) for result in made)


def test_the_same_reading_gives_the_same_bytes(results):
    again = encode_all(exams.reading(), exams.sources(), *EVERY_KIND)
    assert [result.content for result in again] == [result.content for result in results]


def test_results_say_what_they_hold(results):
    for result in results:
        dataset = read(result)
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == result.sop_instance_uid
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == result.sop_class_uid
        assert dataset.file_meta.TransferSyntaxUID == result.transfer_syntax_uid


def test_patient_and_study_are_the_source_s(results):
    source = exams.source(RCC)
    for result in results:
        dataset = read(result)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
            assert dataset[keyword].value == source[keyword].value
        assert str(dataset.ReferringPhysicianName) == "Weiß^Jörg"
        assert dataset.AccessionNumber == "A4711"


def test_objects_of_a_later_reading_say_which_and_what_they_are_within_64_characters():
    later = replace(exams.reading(number=12), predecessor=Predecessor(11, datetime(2026, 3, 14, 11, 5, tzinfo=UTC), ()))
    said = {read(result).SeriesDescription for result in encode_all(later, exams.sources(), *WITHOUT_PICTURES)}
    assert {words for words in said if len(words) > 64} == set()
    names = {words.removeprefix("AI reading 12, replaces 11:05; ") for words in said}
    assert {"CAD (research)", "report (research)", "RCC heat (research)", "results, key objects (research)"} <= names
    assert all(name.endswith("(research)") for name in names)


def test_series_are_ours_and_high(results):
    for result in results:
        dataset = read(result)
        assert (dataset.Modality, int(dataset.SeriesNumber)) == MODALITIES[result.kind.value]
        assert dataset.SeriesInstanceUID == result.series_instance_uid
        assert "research" in dataset.SeriesDescription
    by_series = {}
    for result in results:
        by_series.setdefault(result.series_instance_uid, set()).add(result.kind)
    assert all(len(kinds) == 1 for kinds in by_series.values())
    assert exams.source(RCC).SeriesInstanceUID not in by_series


def test_every_result_is_recognised_as_ours_and_no_source_is(results):
    assert all(is_ours(read(result)) for result in results)
    assert not any(is_ours(source) for source in exams.sources().values())


def test_the_algorithm_is_named(results):
    for result in results:
        dataset = read(result)
        (item,) = dataset.ContributingEquipmentSequence
        assert (item.Manufacturer, item.ManufacturerModelName) == ("mammoclip-node", "exam_encoder")
        assert list(item.SoftwareVersions) == ["1", "openvino bf16"]
        assert item.DeviceSerialNumber == "5e" * 32
        assert dataset.ContentQualification == "RESEARCH"


def test_times_are_the_reading_s(results):
    for result in results:
        dataset = read(result)
        stem = "PresentationCreation" if result.kind is ResultKind.PRESENTATION_STATE else "Content"
        assert (dataset[f"{stem}Date"].value, dataset[f"{stem}Time"].value) == ("20260314", "123015.250000")
        assert (dataset.InstanceCreationDate, dataset.SeriesTime) == ("20260314", "123015.250000")


def test_times_are_in_the_source_s_zone():
    headers = {view: exams.source(view, TimezoneOffsetFromUTC="-0530") for view in STANDARD_VIEWS}
    dataset = read(structured_report.encode(exams.reading(headers=headers), headers))
    assert (dataset.ContentDate, dataset.ContentTime) == ("20260314", "070015.250000")
    assert dataset.TimezoneOffsetFromUTC == "-0530"


@pytest.mark.parametrize("offset", ["", "0100", "+9999", "late"])
def test_an_offset_that_is_none_counts_as_utc(offset):
    headers = exams.sources()
    headers[RCC].TimezoneOffsetFromUTC = offset
    assert read(structured_report.encode(exams.reading(), headers)).ContentTime == "123015.250000"


def test_what_the_source_lacks_is_empty_and_still_valid(tmp_path):
    lacking = dict.fromkeys((*PERSONAL, "PatientOrientation", "ImagerPixelSpacing"))
    headers = {view: exams.source(view, **lacking) for view in STANDARD_VIEWS}
    made = encode_all(exams.reading(headers=headers), headers, "CADSR", "GSPS", "SC", "SEG", "HEATMAP", "KOS", "SR")
    assert [iod_errors(result.content, tmp_path) for result in made] == [[]] * len(made)
    dataset = read(made[-1])
    assert (dataset.PatientName, dataset.StudyID, dataset.AccessionNumber) == ("", "", "")
    assert dataset.PatientID == "P-000123"


def test_empty_values_long_uids_and_other_alphabets_stay(tmp_path):
    headers = {}
    for number, view in enumerate(STANDARD_VIEWS):
        uid = "1.2.826.0.1.3680043.10.1557." + str(number + 1) * 36
        assert len(uid) == 64
        changes = {
            "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
            "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "ReferringPhysicianName": "",
            "SOPInstanceUID": uid,
        }
        headers[view] = exams.source(view, **changes)
    made = encode_all(exams.reading(headers=headers), headers, "CADSR", "SR", "GSPS", "SEG", "KOS")
    assert [iod_errors(result.content, tmp_path) for result in made] == [[]] * len(made)
    for result in made:
        dataset = read(result)
        assert dataset.PatientName.ideographic == "山田^太郎"
        assert list(dataset.SpecificCharacterSet) == ["", "ISO 2022 IR 87"]


def test_sources_as_they_come_from_a_file_with_letters_that_no_character_set_names(monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    headers = {}
    for view in STANDARD_VIEWS:
        raw = part10(exams.source(view)).replace(
            b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", b"\x08\x00\x05\x00CS\x0a\x00" + b" " * 10
        )
        headers[view] = pydicom.dcmread(BytesIO(raw))
    made = encode_all(exams.reading(headers=headers), headers, *WITHOUT_PICTURES)
    assert all("M\xfcller^\xc4nne".encode("latin-1") in result.content for result in made)


def part10(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()


def test_sources_and_results_are_one_patient_one_study(results, tmp_path):
    files = []
    contents = [part10(source) for source in exams.sources().values()] + [result.content for result in results]
    for number, content in enumerate(contents):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(content)
    assert entity_errors(files) == []


def test_a_source_that_was_not_read_is_refused():
    headers = exams.sources()
    headers[LCC].SOPInstanceUID = "1.2.3"
    with pytest.raises(EncodeError, match="no source data set for LCC"):
        encode_all(exams.reading(), headers)


def test_a_finding_in_a_view_that_was_not_read_is_refused():
    whole, part = exams.reading(), exams.reading(views=(RCC, LCC))
    with pytest.raises(EncodeError, match="LMLO"):
        encode_all(replace(part, findings=whole.findings), exams.sources())


def test_heat_that_is_not_registered_is_refused():
    made = exams.reading()
    raw = replace(made.views[0], heatmap=np.zeros((2, 24, 14), np.float32))
    with pytest.raises(EncodeError, match="not registered"):
        encode_all(replace(made, views=(raw, *made.views[1:])), exams.sources())


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(EncodeError, match="zone"):
        encode_all(exams.reading(read_at=datetime(2026, 3, 14, 12, 0)), exams.sources())


def test_lossy_sources_make_lossy_results():
    headers = {
        view: exams.source(view, LossyImageCompression="01", LossyImageCompressionRatio="12.5")
        for view in STANDARD_VIEWS
    }
    made = [read(result) for result in encode_all(exams.reading(headers=headers), headers)]
    images = [dataset for dataset in made if dataset.SOPClassUID != Comprehensive3DSRStorage]
    assert {dataset.LossyImageCompression for dataset in images} == {"01"}
    assert {float(dataset.LossyImageCompressionRatio) for dataset in images} == {12.5}


def test_another_time_changes_no_uid_and_another_model_changes_all(results):
    def uids(**changes):
        made = replace(exams.reading(), **changes)
        return {result.sop_instance_uid for result in encode_all(made, exams.sources(), *WITHOUT_PICTURES)}

    here = {result.sop_instance_uid for result in results}
    again = uids(read_at=datetime(2027, 1, 1, tzinfo=UTC))
    named = {result.sop_instance_uid for result in results if result.kind.value not in ("SC", "SCVIEW", "KOS")}
    assert named <= again
    assert not uids(model=replace(exams.reading().model, weights_hash="6f" * 32)) & here


def test_order_of_views_is_kept(results):
    uids = [exams.source(view).SOPInstanceUID for view in (RCC, RMLO, LMLO)]
    segmentations = [read(result) for result in results if result.kind is ResultKind.SEGMENTATION]
    seen = [
        item.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
        for item in segmentations
    ]
    assert seen == uids
