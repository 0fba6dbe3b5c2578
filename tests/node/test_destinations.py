"""What a destination gets by its preset, and each combination that cannot work, with its reason."""

from pathlib import Path

import pytest

from node.destinations import EXPLAINING, FINDINGS, OBJECTS, PRESETS, Destination, check_destination
from node.errors import SettingsError
from node.mammography.findings import FindingKind
from node.results.reading import ResultKind
from node.settings import Settings, load_settings

SHIPPED = Path(__file__).parents[2] / "settings.toml"
HEAD = "[[destinations]]\n"
DICOM = 'protocol = "dicom"\nhost = "h"\nport = 104\nae_title = "PACS"\n'
WEB = 'protocol = "dicomweb"\nurl = "http://h/dicom-web"\n'
HL7 = 'protocol = "hl7"\nhost = "h"\nport = 2575\n'


def settings_with(tmp_path: Path, table: str) -> Settings:
    """The shipped settings with one destination of this table."""
    text = SHIPPED.read_text()
    path = tmp_path / "settings.toml"
    head = text[: text.index(f"{HEAD}name")]
    path.write_text(f'{head}{HEAD}name = "d"\n{table}')
    return load_settings(path, {})


def test_words_are_those_of_the_other_modules() -> None:
    assert set(OBJECTS) == {kind.value for kind in ResultKind} - {"REJECT", "ORU"}
    assert tuple(FindingKind) == FINDINGS
    assert {"CADSR", "SR", "ORU"} == EXPLAINING


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_works(tmp_path: Path, name: str) -> None:
    [destination] = settings_with(tmp_path, f'{DICOM}preset = "{name}"\n').destinations
    assert destination.kinds == PRESETS[name].objects
    assert destination.frame == PRESETS[name].segmentation_frame
    assert destination.wants_unread == PRESETS[name].explain_unread


def test_keys_replace_what_the_preset_says(tmp_path: Path) -> None:
    table = f'{DICOM}preset = "archive"\nobjects = ["GSPS", "SC"]\n'
    [destination] = settings_with(tmp_path, table).destinations
    assert (destination.kinds, destination.wants_unread) == (("GSPS", "SC"), False)
    table = f'{WEB}objects = ["SR", "SEG"]\nsegmentation_frame = "own"\nexplain_unread = true\nretract = true\n'
    [destination] = settings_with(tmp_path, table).destinations
    assert (destination.frame, destination.wants_unread, destination.retract) == ("own", True, True)


def test_a_workstation_has_its_own_profile(tmp_path: Path) -> None:
    cad = '[destinations.cad]\nrequired_at = { mass = 0.6 }\nbelow = "omit"\nexam_value = "none"\n'
    [destination] = settings_with(tmp_path, f'{DICOM}preset = "breast-workstation"\n{cad}').destinations
    assert destination.cad.required_at == (("mass", 0.6),)
    assert (destination.cad.below, destination.cad.exam_value) == ("omit", "none")


def test_a_message_goes_to_an_hl7_destination(tmp_path: Path) -> None:
    [destination] = settings_with(tmp_path, HL7).destinations
    assert (destination.kinds, destination.wants_unread) == (("ORU",), False)
    [told] = settings_with(tmp_path, f"{HL7}explain_unread = true\n").destinations
    assert told.wants_unread


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (DICOM.replace("dicom", "ftp"), "protocol: must be one of dicom, dicomweb, hl7"),
        (DICOM + "timeout_seconds = 0\n", "timeout_seconds: must be above 0"),
        (DICOM.replace('"h"', '""'), "host: missing"),
        (DICOM.replace("104", "0"), "port: must be 1 to 65535"),
        (DICOM.replace("PACS", ""), "ae_title: must have 1 to 16 characters"),
        (DICOM + 'url = "http://h"\n', "url: dicom is reached at host and port"),
        (DICOM + 'username = "u"\n', "url: dicom is reached at host and port"),
        (WEB + 'host = "h"\n', "host: dicomweb is reached at url alone"),
        (WEB.replace("http://", ""), "url: must begin with http:// or https://"),
        (HL7 + 'ae_title = "A"\n', "ae_title: HL7 knows no AE title"),
        (HL7 + 'objects = ["SR"]\n', "objects: an HL7 destination gets one message"),
        (HL7 + 'preset = "ohif"\n', "preset: an HL7 destination gets one message"),
        (DICOM.replace('"h"', '"h:104"'), "host: must be a name or an address alone"),
        (DICOM.replace('"h"', '"dicom://h"'), "host: must be a name or an address alone"),
        (WEB.replace("http://h", "http://u:p@h"), "url: no user and no password in it"),
        (DICOM + 'objects = ["CADSR"]\n[destinations.cad]\nbelow = "not"\n', "cad.below: has no effect without"),
        (HL7 + "retract = true\n", "retract: a rejection note is a DICOM object"),
        (HL7 + 'segmentation_frame = "own"\n', "segmentation_frame: an HL7 message holds no segmentation"),
        (HL7 + '[destinations.cad]\nbelow = "omit"\n', "cad: shapes the CADSR"),
        (DICOM + 'preset = "pacs"\n', "preset: no such preset; known: breast-workstation, general-pacs"),
        (DICOM + "objects = []\n", "objects: is empty"),
        (DICOM + 'objects = ["SR", "PDF"]\n', "objects: PDF is unknown; choose of CADSR"),
        (DICOM + 'objects = ["SR", "SR"]\n', "objects: names one twice"),
        (DICOM + 'objects = ["KOS"]\n', "objects: KOS names the other objects"),
        (DICOM + 'objects = ["SEG", "LABELMAP"]\n', "objects: SEG and LABELMAP are the same regions"),
        (DICOM + 'segmentation_frame = "mine"\n', "segmentation_frame: must be one of source, own"),
        (DICOM + 'objects = ["SR"]\nsegmentation_frame = "own"\n', "segmentation_frame: nothing that it gets"),
        (DICOM + 'objects = ["SC"]\nexplain_unread = true\n', "explain_unread: only CADSR and SR can say"),
        (DICOM + '[destinations.cad]\nbelow = "omit"\n', "cad: shapes the CADSR"),
        (
            DICOM + 'objects = ["CADSR"]\n[destinations.cad]\nrequired_at = { lump = 0.5 }\n',
            "no finding is called lump",
        ),
        (DICOM + 'objects = ["CADSR"]\n[destinations.cad]\nrequired_at = { mass = 1.0 }\n', "between 0 and 1"),
        (DICOM + 'objects = ["CADSR"]\n[destinations.cad]\nbelow = "hide"\n', "cad.below: must be one of"),
        (DICOM + 'objects = ["CADSR"]\n[destinations.cad]\nexam_value = "both"\n', "cad.exam_value: must be"),
        (DICOM + 'objects = ["CADSR"]\n[destinations.cad]\nabove = "both"\n', "cad.above: unknown key"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_with(tmp_path, table)
    assert "destinations[0]." in str(caught.value)
    assert said in str(caught.value)


def test_a_destination_made_in_code_is_checked_as_well() -> None:
    with pytest.raises(SettingsError, match=r"here\.port"):
        check_destination(Destination("d", "dicom", "h", 0, "A"), "here")
