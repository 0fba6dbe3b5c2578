"""[inference] for a Triton server: what is accepted, how each mistake is named, and that the secret stays secret."""

from pathlib import Path

import pytest

from node.errors import SettingsError
from node.inference.triton_served import deadline_of
from node.inference_settings import SECRET_VARIABLE, is_loopback
from node.settings import load_settings

SHIPPED = Path(__file__).parents[2] / "settings.toml"


def written(tmp_path: Path, lines: str) -> Path:
    """The shipped settings with backend = "triton" and more lines under [inference]."""
    text = SHIPPED.read_text()
    old = 'backend = "openvino"        #'
    assert old in text
    path = tmp_path / "settings.toml"
    path.write_text(text.replace(old, f'{lines}\nbackend = "triton" #', 1))
    return path


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('shared_memory = "yes"', "inference.shared_memory: must be one of auto, always, never"),
        ("triton_version = 2", "inference.triton_version: must be a string"),
        ('triton_version = "v2"', "inference.triton_version: must be a whole number in quotes, or empty"),
        ("urgent_deadline_seconds = 0", "inference.urgent_deadline_seconds: must be above 0"),
        ("retrospective_deadline_seconds = 300", "is 300; it must be below worker.lease_seconds, 300"),
        ('triton_ca_file = "ca.pem"', "inference.triton_ca_file: is used with triton_tls = true only"),
        ('triton_tls = true\ntriton_ca_file = "ca.pem"', "inference.triton_ca_file: there is no file"),
        ('triton_tls = true\ntriton_key_file = "settings.toml"', "and triton_key_file belong together"),
        ('triton_secret_header = "admin-key"', f"has no value: set {SECRET_VARIABLE}"),
        ('triton_secret_header = "Admin Key"', "inference.triton_secret_header: holds lower-case letters"),
        ('triton_secret = "hush"', f"inference.triton_secret: never in the file; set {SECRET_VARIABLE}"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, lines: str, named: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(written(tmp_path, lines), {})
    assert named in str(error.value)


def test_the_secret_comes_from_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    path = written(tmp_path, 'triton_secret_header = "admin-key"')
    settings = load_settings(path, {SECRET_VARIABLE: "hush"})
    assert settings.inference.triton_secret == "hush"
    assert "hush" not in repr(settings)


def test_a_secret_without_its_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{SECRET_VARIABLE}: is set in the environment"):
        load_settings(written(tmp_path, ""), {SECRET_VARIABLE: "hush"})


def test_a_secret_crosses_no_network_in_clear_text(tmp_path: Path) -> None:
    path = written(tmp_path, 'triton_secret_header = "admin-key"')
    elsewhere = {SECRET_VARIABLE: "hush", "MAMMOCLIP_INFERENCE_TRITON_URL": "gpu.example.org:8001"}
    with pytest.raises(SettingsError, match="would cross the network in clear text; set triton_tls = true"):
        load_settings(path, elsewhere)
    path = written(tmp_path, 'triton_tls = true\ntriton_secret_header = "admin-key"')
    assert load_settings(path, elsewhere).inference.triton_tls


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("localhost:8001", True),
        ("127.0.0.1:8001", True),
        ("127.1.2.3:8001", True),
        ("[::1]:8001", True),
        ("gpu:8001", False),
        ("10.0.0.1:8001", False),
        ("127.0.0.1.example.org:8001", False),
    ],
)
def test_which_urls_are_this_host(url: str, is_here: bool) -> None:
    assert is_loopback(url) == is_here


def test_the_deadline_follows_the_priority_of_the_rule(tmp_path: Path) -> None:
    inference = load_settings(written(tmp_path, ""), {}).inference
    assert [deadline_of(inference, priority) for priority in range(10)] == [20.0] * 3 + [60.0] * 4 + [180.0] * 3
