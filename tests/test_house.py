"""The rules of the house that no linter knows."""

import ast
import importlib.metadata
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import node

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CODE = [path for top in ("node", "training", "deploy", "tests") for path in sorted((ROOT / top).rglob("*.py"))]
LONGEST_FUNCTION = 60
LONGEST_FILE = 460
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|PSF|Python Software Foundation|ISC|Zlib|HPND|CC0|Unlicense|MIT-CMU)\b", re.IGNORECASE
)
COPYLEFT = re.compile(r"\b(A|L)?GPL", re.IGNORECASE)
ALLOWED_OTHERWISE = {"certifi": "MPL-2.0: a file of root certificates, comes with httpx and is not changed"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def closure(name: str, extras: set[str]) -> set[str]:
    """The distributions that an install brings."""
    todo, done = [(name, extra) for extra in {"", *extras}], set[tuple[str, str]]()
    while todo:
        item = todo.pop()
        if item in done:
            continue
        done.add(item)
        for text in importlib.metadata.requires(item[0]) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": item[1]}):
                todo += [(canonicalize_name(requirement.name), extra) for extra in {"", *requirement.extras}]
    return {distribution for distribution, _ in done} - {name}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for found in ast.walk(ast.parse(path.read_text())):
        if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
            yield found


@pytest.fixture
def installed() -> None:
    try:
        importlib.metadata.distribution("mammoclip-node")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mammoclip-node runs from its folder and is not installed")


@pytest.mark.usefixtures("installed")
def test_node_and_training_have_one_owner() -> None:
    """Another distribution called `node` exists on PyPI."""
    owners = importlib.metadata.packages_distributions()
    assert set(owners["node"]) == {"mammoclip-node"}
    assert set(owners["training"]) == {"mammoclip-node"}
    assert Path(node.__file__).parent == ROOT / "node"


@pytest.mark.usefixtures("installed")
def test_core_install_has_permissive_licences_only() -> None:
    wrong = {}
    for name in sorted(closure("mammoclip-node", set()) - set(ALLOWED_OTHERWISE)):
        metadata = importlib.metadata.metadata(name)
        classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License")]
        first_line = (metadata.get("License") or "").strip().split("\n")[0]
        stated = " ".join([metadata.get("License-Expression") or "", first_line, *classifiers])
        if COPYLEFT.search(stated) or not PERMISSIVE.search(stated):
            wrong[name] = stated
    assert wrong == {}


@pytest.mark.usefixtures("installed")
def test_the_demo_installs_no_torch() -> None:
    brought = closure("mammoclip-node", {"demo"})
    assert "pydicom" in brought
    assert not {name for name in brought if name.startswith(("torch", "nvidia", "triton")) and name != "tritonclient"}


def test_the_package_is_never_uploaded() -> None:
    assert "Private :: Do Not Upload" in PROJECT["classifiers"]
    assert PROJECT["version"] == node.__version__


def test_constraints_pin_every_requirement() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {canonicalize_name(name): version for name, version in pinned.items()}
    wanted = PROJECT["dependencies"] + [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    unmet = [text for text in wanted if pins.get(canonicalize_name(Requirement(text).name)) not in _allowed(text, pins)]
    assert unmet == []


def _allowed(text: str, pins: dict[str, str]) -> set[str]:
    """The pin of a requirement, where the requirement admits it."""
    requirement = Requirement(text)
    version = pins.get(canonicalize_name(requirement.name), "")
    return {version} if version and requirement.specifier.contains(version, prereleases=True) else set()


def test_no_file_names_a_machine() -> None:
    """Paths of one machine and names of registries have no place in a repository."""
    signs = re.compile(
        rb"/wo" rb"rk/|/ro" rb"ot/|/home/[a-z]|https?://[^\s\"')]*(pypi|pip|wheel|npm|artifact)[^\s\"')]*/simple"
    )
    found = [
        str(path.relative_to(ROOT)) for path in tracked_files() if _is_text(path) and signs.search(path.read_bytes())
    ]
    assert found == []


def _is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:8000]


def test_functions_and_files_stay_small() -> None:
    long_functions = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in CODE
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= LONGEST_FUNCTION
    ]
    long_files = [str(path.relative_to(ROOT)) for path in CODE if path.read_text().count("\n") > LONGEST_FILE]
    assert (long_functions, long_files) == ([], [])


def test_every_test_asserts() -> None:
    """A test function holds an assert, a pytest.raises or a pytest.warns of its own."""
    idle = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in CODE
        if path.name.startswith("test_")
        for function in functions(path)
        if function.name.startswith("test_") and not _asserts(function)
    ]
    assert idle == []


def _asserts(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    for found in ast.walk(function):
        if isinstance(found, ast.Assert):
            return True
        if isinstance(found, ast.Attribute) and (found.attr in ("raises", "warns") or found.attr.startswith("assert_")):
            return True
    return False


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|raise NotImplemented" r"Error")
    assert [str(path.relative_to(ROOT)) for path in CODE if words.search(path.read_text())] == []


def test_file_names_say_something() -> None:
    empty_words = {"utils", "helpers", "common", "base", "manager", "service", "handler"}
    assert [str(path.relative_to(ROOT)) for path in CODE if empty_words & set(path.stem.split("_"))] == []


def test_test_folders_are_packages() -> None:
    """Without __init__.py `tests/node` would shadow `node`."""
    folders = {path.parent for path in CODE if (ROOT / "tests") in path.parents}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_decisions_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert names
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
