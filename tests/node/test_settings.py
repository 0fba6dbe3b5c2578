"""settings.toml to Settings: what is accepted, and how each mistake is named."""

from pathlib import Path

import pytest

from node.errors import SettingsError
from node.settings import load_settings, password_variable

SHIPPED = Path(__file__).parents[2] / "settings.toml"


def _changed(tmp_path: Path, old: str, new: str) -> Path:
    text = SHIPPED.read_text()
    assert old in text
    path = tmp_path / "settings.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_shipped_settings_load_and_are_complete() -> None:
    settings = load_settings(SHIPPED, {})
    assert settings.listener.ae_title == "MAMMOCLIP"
    assert settings.database_url == f"sqlite:///{SHIPPED.parent / 'data' / 'node.db'}"
    assert settings.inference.model_folder == SHIPPED.parent / "triton_models/exam_encoder"
    assert settings.reading.site_prevalence is None
    assert [rule.name for rule in settings.rules] == ["screening"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("ae_title = ", "ae_tilte = ", "listener.ae_tilte: unknown key"),
        ("settle_seconds = 180.0", "", "exam.settle_seconds: missing key"),
        ("port = 11112", 'port = "11112"', "listener.port: must be a whole number"),
        ("port = 11112", "port = true", "listener.port: must be a whole number"),
        ("port = 11112", "port = 111120", "listener.port: must be 1 to 65535"),
        ("read_incomplete = false", "read_incomplete = 0", "exam.read_incomplete: must be true or false"),
        ('backend = "openvino"', 'backend = "tensorflow"', "inference.backend: must be one of"),
        ("# site_prevalence = 0.006", "site_prevalence = 6", "reading.site_prevalence: must lie between 0 and 1"),
        ('equals = "MG"', 'equals = "MG", regex = "M."', "rules[0].match[0]: needs exactly one"),
        ('equals = "MG"', 'regex = "("', "rules[0].match[0].regex"),
        ('# destinations = ["pacs"]', 'destinations = ["pax"]', "rules[0].destinations: no destination"),
        ("# thresholds = { mass = 0.5", "thresholds = { mass = 1.5", "rules[0].thresholds.mass"),
        ('protocol = "dicom"', 'protocol = "ftp"', "destinations[0].protocol"),
        ("port = 4242", "port = 0", "destinations[0].port"),
        ('ae_title = "PACS"', 'ae_title = "PACS"\npassword = "x"', "destinations[0].password: never in the file"),
        ('broker_url = ""', 'broker_url = "amqp://localhost"', "broker_url: no Redis URL"),
        ("[listener]", "[listener", "not valid TOML"),
        ("timeout_seconds = 30.0", "timeout_seconds = inf", "destinations[0].timeout_seconds: must be a finite number"),
        ("lease_seconds = 300.0", "lease_seconds = nan", "worker.lease_seconds: must be a finite number"),
        ("port = 4242", "port = 11112", "destinations[0].port: that is this node's own listener"),
        ('keyword = "Modality"', 'keyword = "Modalty"', "rules[0].match[0].keyword: 'Modalty' is nothing that a rule"),
        (
            "# thresholds = { mass = 0.5, suspicious_calcification = 0.5 }",
            'thresholds = { mass = 0.5 }\nskip = "no"',
            "rules[0].skip: a rule skips or reads",
        ),
        ('# destinations = ["pacs"]', 'skip = " "', "rules[0].skip: says nothing"),
        ('# destinations = ["pacs"]', 'model = "density"', "rules[0].model: no such model; known: exam_encoder"),
    ],
)
def test_each_mistake_names_its_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = _changed(tmp_path, old, new)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_environment_wins_and_passwords_come_from_it(tmp_path: Path) -> None:
    path = _changed(tmp_path, 'name = "pacs"', 'name = "main-pacs"')
    environment = {
        "MAMMOCLIP_DATA_FOLDER": str(tmp_path / "elsewhere"),
        "MAMMOCLIP_LISTENER_PORT": "10400",
        "MAMMOCLIP_BROKER_URL": "redis://localhost:6379/0",
        password_variable("main-pacs"): "secret",
    }
    settings = load_settings(path, environment)
    assert password_variable("main-pacs") == "MAMMOCLIP_DESTINATION_MAIN_PACS_PASSWORD"
    assert settings.data_folder == tmp_path / "elsewhere"
    assert settings.database_url == f"sqlite:///{tmp_path / 'elsewhere' / 'node.db'}"
    assert settings.listener.port == 10400
    assert settings.broker_url == "redis://localhost:6379/0"
    assert settings.destinations[0].password == "secret"


def test_wrong_environment_is_named() -> None:
    with pytest.raises(SettingsError, match=r"listener\.port: must be a whole number"):
        load_settings(SHIPPED, {"MAMMOCLIP_LISTENER_PORT": "many"})
    with pytest.raises(SettingsError, match="MAMMOCLIP_DESTINATION_PAX_PASSWORD"):
        load_settings(SHIPPED, {"MAMMOCLIP_DESTINATION_PAX_PASSWORD": "x"})


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml: cannot be read"):
        load_settings(tmp_path / "nothing.toml", {})
