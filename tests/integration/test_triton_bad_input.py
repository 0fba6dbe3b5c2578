"""What can be wrong with a model on a real Triton, or with what it is asked: each is said, nothing is guessed.

A fault shows in three places: the client's error, the status of an exam that waits or is marked, and `doctor`.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from node import pipeline
from node.database.exams import ExamRecord
from node.doctor import Check
from node.doctor import examine as doctor_checks
from node.errors import (
    ContractError,
    InferenceError,
    InferenceUnavailableError,
    ModelError,
    NodeError,
    NotServedError,
)
from node.exam import ExamStatus
from node.inference.load import load_model
from node.inference.tensors import signature_of, wire_inputs
from node.inference.triton_model import TritonModel
from node.inference.triton_served import ServedModel
from node.settings import InferenceSettings
from tests import mammograms
from tests.integration.desk import Desk
from tests.integration.triton_exams import EVERY, HEIGHT, WIDTH, change, change_answer, change_contract, some_views
from tests.integration.triton_server import Repository, TritonServer
from tests.models import make_tiny_phrase_models

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")

Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def plain(triton: TritonServer) -> InferenceSettings:
    return Repository(triton).serve("unchanged")


@pytest.fixture(scope="module")
def asked(plain: InferenceSettings) -> Iterator[TritonModel]:
    model = TritonModel(plain)
    yield model
    model.close()


@dataclass(frozen=True)
class Fault:
    """A model with one thing wrong: how it is made, and what is said of it."""

    changed: Callable[[Path], object]
    error: type[ModelError]
    said: str
    more: tuple[tuple[str, object], ...] = ()
    """For `make_tiny_model`."""


def _nothing(folder: Path) -> None:
    """Unchanged."""


def _configured(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: change(folder / "config.pbtxt", old, new)


def _answering(how: str) -> Callable[[Path], object]:
    return lambda folder: change_answer(folder, how)


def _without_batches(folder: Path) -> None:
    """One exam without an axis of exams."""
    file = folder / "config.pbtxt"
    text = re.sub(r"dynamic_batching \{.*?\n\}\n", "", file.read_text(), flags=re.DOTALL)
    file.write_text(re.sub(r"max_batch_size: \d+", "max_batch_size: 0", text))


FAULTS = {
    "contract of another version": Fault(
        lambda folder: change_contract(folder, '"contract_version": 1', '"contract_version": 2'),
        ContractError,
        "contract_version: is 2; this node understands 1",
    ),
    "another shape than the contract's": Fault(
        lambda folder: change_contract(folder, f'"preset": "fit-{HEIGHT}x{WIDTH}"', '"preset": "fit-64x64"'),
        ContractError,
        "input_shape: is (152, 96); fit-64x64 gives (64, 64)",
    ),
    "another type than the contract's": Fault(
        _configured('"views" data_type: TYPE_FP32', '"views" data_type: TYPE_FP16'),
        ContractError,
        "tensor views is float16; the contract says float32",
    ),
    "an output that is missing": Fault(
        lambda folder: change_contract(folder, '"view_embeddings"', '"density_logits"'),
        ContractError,
        "tensor density_logits is missing",
    ),
    "no contract": Fault(
        _configured('parameters { key: "contract"', 'parameters { key: "contrast"'),
        NotServedError,
        "serves no model",
    ),
    "a file that is no model": Fault(
        lambda folder: (folder / "1/model.onnx").write_bytes(b"corrupt"), NotServedError, "serves no model"
    ),
    "a configuration of another export": Fault(
        _configured("0.0.1-tiny", "0.0.2-tiny"), NotServedError, "serves no model"
    ),
    "a batch axis that is none": Fault(_without_batches, NotServedError, "serves no model"),
    "answers of another shape": Fault(
        _answering('answer["breast_logits"] = answer["breast_logits"][:, :1]'),
        InferenceError,
        "(1, 1); the contract says",
    ),
    "answers that are no number": Fault(
        _answering('answer["exam_logit"][:] = np.nan'), InferenceError, "output exam_logit is not finite"
    ),
    "an absent view that is seen": Fault(
        _nothing,
        ContractError,
        "output exam_embedding depends on the pixels of an absent view",
        more=(("leaky", True),),
    ),
    "other labels": Fault(
        lambda folder: (folder / "labels.txt").write_text("suspicious_calcification\nmass\n"),
        ContractError,
        "names suspicious_calcification, mass; the contract's findings are mass, suspicious_calcification",
    ),
    "an error in the model": Fault(
        _answering('raise RuntimeError("the weights are gone")'), InferenceUnavailableError, "the weights are gone"
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_model_that_does_not_fit_is_refused_and_the_exam_waits(name: str, repository: Repository, desk: Desk) -> None:
    fault, served = FAULTS[name], "".join(word.capitalize() for word in name.replace("'", "").split())
    repository.make(served, fault.changed, **dict(fault.more))
    with contextlib.suppress(InferenceServerException):  # what the server itself refuses, the node says too
        repository.load(served)
    settings = repository.settings(served)
    with pytest.raises(fault.error) as caught:
        load_model(settings)
    assert fault.said in str(caught.value)
    waits = read(desk, settings)
    assert (waits.status, waits.attempts) == (ExamStatus.READY, 0)
    assert waits.reason == f"no model: {caught.value}"
    assert waits.due_at is not None
    doctor = seen_by_doctor(desk, settings)
    assert not doctor["model"].works
    assert fault.said in doctor["model"].seen
    assert doctor["model server"].works is not (fault.error is NotServedError)


def read(desk: Desk, settings: InferenceSettings) -> ExamRecord:
    """An exam, read by a worker that asks this model; what became of it."""
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None
    try:
        pipeline.read_exam(desk.bench, leased, lambda: load_model(settings))
    except NodeError as error:
        pipeline.give_up(desk.bench, leased, error, datetime.now(UTC))
    return desk.exam(study)


def seen_by_doctor(desk: Desk, settings: InferenceSettings) -> dict[str, Check]:
    """Its two checks of the model."""
    checked = replace(desk.bench.settings, inference=settings, destinations=())
    return {check.name: check for check in doctor_checks(checked) if check.name.startswith("model")}


def test_why_the_server_has_no_model_is_told_by_doctor(repository: Repository, desk: Desk) -> None:
    repository.make("corrupt", lambda folder: (folder / "1/model.onnx").write_bytes(b"no model"))
    with pytest.raises(InferenceServerException, match="Unable to read the model"):
        repository.load("corrupt")
    check = seen_by_doctor(desk, repository.settings("corrupt"))["model server"]
    assert "triton 2.51.0" in check.seen
    assert (
        "does not serve corrupt. version 1 unavailable: Internal: RuntimeError: Unable to read the model" in check.seen
    )
    assert "mend its model repository" in check.fix


def test_a_corrupt_file_does_not_replace_the_model_that_is_served(repository: Repository) -> None:
    settings = repository.serve("spoilt")
    model = load_model(settings)
    before = model.infer(some_views(1), EVERY)
    (repository.server.repository / "spoilt/1/model.onnx").write_bytes(b"no model")
    with pytest.raises(InferenceServerException, match="Unable to read the model"):
        repository.load("spoilt")
    assert model.infer(some_views(1), EVERY).exam_logit == before.exam_logit


def test_a_model_of_another_kind_is_refused(repository: Repository, tmp_path: Path) -> None:
    make_tiny_phrase_models(tmp_path, height=HEIGHT, width=WIDTH)
    shutil.copytree(tmp_path / "exam_query", repository.server.repository / "query_in_its_place")
    with pytest.raises(ContractError, match="contract: findings: is missing"):
        load_model(repository.load("query_in_its_place"))


def test_an_exam_that_the_model_cannot_answer_is_marked(repository: Repository, desk: Desk) -> None:
    """The node's own check of the model passes: only images with a black background are answered with NaN."""
    black = 'if (parts[0]["views"] == 0).mean() > 0.27: answer["exam_logit"][:] = np.nan'
    settings = repository.serve("choosy", lambda folder: change_answer(folder, black))
    marked = read(desk, settings)
    assert (marked.status, marked.alarm) == (ExamStatus.FAILED, False)
    assert marked.reason == "InferenceError: output exam_logit is not finite"


@pytest.mark.parametrize(
    ("views", "present", "said"),
    [
        (np.zeros((4, 1, 64, 64), np.float32), EVERY, "views (4, 1, 64, 64) and present (4,) are not (4, 1, 152, 96)"),
        (np.full((4, 1, HEIGHT, WIDTH), np.nan, np.float32), EVERY, "a present view holds pixels outside [0, 1]"),
        (np.full((4, 1, HEIGHT, WIDTH), 4095.0, np.float32), EVERY, "a present view holds pixels outside [0, 1]"),
        (some_views(1), ~EVERY, "no view is present"),
    ],
)
def test_views_that_are_none_never_reach_the_server(
    views: NDArray[np.float32], present: NDArray[np.bool_], said: str, asked: TritonModel
) -> None:
    with pytest.raises(InferenceError) as caught:
        asked.infer(views, present)
    assert said in str(caught.value)


def test_constant_views_have_finite_answers(asked: TritonModel) -> None:
    for grey in (0.0, 0.5, 1.0):
        assert np.isfinite(asked.infer(np.full((4, 1, HEIGHT, WIDTH), grey, np.float32), EVERY).exam_logit)


def test_an_absent_view_sent_as_noise_changes_no_bit(asked: TritonModel, plain: InferenceSettings) -> None:
    present = np.array([True, False, True, True])
    served, answers = ServedModel(plain, plain.triton_model), []
    for noise in (0.0, 1.0, np.nan):
        inputs = wire_inputs(some_views(3), present, asked.contract)
        inputs["views"][0, 1] = noise
        answers.append(served.run(inputs, signature_of(asked.contract)[1]).outputs)
    for answer in answers[1:]:
        assert all(np.array_equal(answer[name], answers[0][name]) for name in asked.contract.outputs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda inputs: {name: np.repeat(value, 9, axis=0) for name, value in inputs.items()},
            "batch-size must be <= 4",
        ),
        (lambda inputs: inputs | {"views": inputs["views"][:, :, :, :64]}, "unexpected shape for input 'views'"),
        (lambda inputs: inputs | {"views": inputs["views"].astype(np.float16)}, "data-type"),
        (lambda inputs: {"views": inputs["views"]}, "expected 2 inputs but got 1"),
    ],
)
@pytest.mark.parametrize("shared_memory", ["always", "never"])
def test_what_the_server_does_not_take_is_said_in_its_words(
    change: Callable[[Tensors], Tensors], said: str, shared_memory: str, asked: TritonModel, plain: InferenceSettings
) -> None:
    served = ServedModel(replace(plain, shared_memory=shared_memory), plain.triton_model)
    inputs = change(wire_inputs(some_views(1), EVERY, asked.contract))
    with pytest.raises(InferenceError, match=r"answered INVALID_ARGUMENT: ") as caught:
        served.run(inputs, signature_of(asked.contract)[1])
    assert said in str(caught.value)
    served.close()
