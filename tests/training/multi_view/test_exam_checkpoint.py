"""System B's folder: small, exact, and bound to its backbone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.mammo_clip.released import CheckpointError
from training.multi_view.adapters import AdapterPlan
from training.multi_view.case_prompts import DETAILED
from training.multi_view.clip import VARIANTS, Clip
from training.multi_view.clip_tokenizer import OWN_VOCABULARY
from training.multi_view.exam_checkpoint import (
    Backbone,
    load_backbone,
    load_exam_clip,
    save_clip,
    save_exam_clip,
    state_hash,
)
from training.multi_view.exam_model import ExamClip, build_exam_clip

CONFIG = replace(VARIANTS["tiny"], vocabulary=1329)
PLAN = AdapterPlan("both", 2, "serial", 0.5, first_block=1, projections=True)


def backbone(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(CONFIG, Clip(CONFIG).state_dict(), f"clip-{seed}")


def trained(base: Backbone) -> ExamClip:
    model = build_exam_clip(CONFIG, PLAN, 2, 0.2, base.state)
    torch.manual_seed(8)
    with torch.no_grad():
        for value in model.trainable_parameters():
            value.add_(torch.randn(value.shape) * 0.3)
    return model.eval()


def saved(folder: Path) -> tuple[ExamClip, Backbone]:
    base = backbone()
    model = trained(base)
    folder.mkdir()
    save_exam_clip(folder, model, PLAN, base, DETAILED, OWN_VOCABULARY, {"seed": 3})
    return model, base


def test_a_model_comes_back_as_it_was_on_its_backbone(tmp_path: Path):
    model, base = saved(tmp_path / "run")
    found = load_exam_clip(tmp_path / "run", base)
    views, present = torch.rand(2, 4, 1, 32, 32), torch.tensor([[True] * 4, [True, False, True, False]])
    ids = torch.from_numpy(found.tokenizer.batch(DETAILED.positive, 16))
    with torch.no_grad():
        assert torch.equal(found.model(views, present), model(views, present))
        assert torch.equal(found.model.encode_text(ids), model.encode_text(ids))
    assert (found.prompts, found.record["seed"], found.model.view_dropout) == (DETAILED, 3, 0.2)
    assert not found.model.training


def test_only_what_was_trained_is_written(tmp_path: Path):
    model, base = saved(tmp_path / "run")
    written = load_file(tmp_path / "run" / "model.safetensors")
    assert written.keys() == {name for name, value in model.named_parameters() if value.requires_grad}
    assert sum(v.numel() for v in written.values()) < 0.5 * sum(value.numel() for value in base.state.values())


def test_another_backbone_is_refused(tmp_path: Path):
    saved(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"was trained on another backbone: clip-0 with hash \w{12}, not clip-1"):
        load_exam_clip(tmp_path / "run", backbone(1))


def test_a_backbone_of_our_own_comes_back_from_its_folder(tmp_path: Path):
    base = backbone()
    clip = Clip(CONFIG, PLAN)
    clip.load_state_dict({**clip.state_dict(), **base.state})
    save_clip(tmp_path, clip, OWN_VOCABULARY, {"seed": 1})
    found = load_backbone(tmp_path)
    assert found.config == CONFIG
    assert state_hash(found.state) == state_hash(base.state)
    assert json.loads((tmp_path / "model.json").read_text())["hash"] == state_hash(base.state)


def test_the_hash_is_that_of_the_values_whatever_their_order_or_precision():
    state = {key: value.half().float() for key, value in backbone().state.items()}
    half = {key: value.half() for key, value in reversed(state.items())}
    assert state_hash(half) == state_hash(state)
    state["logit_scale"] = state["logit_scale"] + 1e-6
    assert state_hash(half) != state_hash(state)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path):
    folder = tmp_path / "run"
    _, base = saved(folder)
    weights, record = load_file(folder / "model.safetensors"), json.loads((folder / "model.json").read_text())

    def refused(words: str, **changes) -> None:
        (folder / "model.json").write_text(json.dumps({**record, **changes}))
        with pytest.raises(CheckpointError, match=words):
            load_exam_clip(folder, base)

    refused("is a record of kind 'clip'; wanted is 'multi-view'", kind="clip")
    refused("adapters: key sites is missing", adapters={k: v for k, v in record["adapters"].items() if k != "sites"})
    refused("adapters: towers is 'all'; there are none, image", adapters={**record["adapters"], "towers": "all"})
    refused("KeyError: 'hash': no record of System B", backbone={"source": "x"})
    refused("global_blocks is 9", global_blocks=9)
    save_file({key: value for key, value in weights.items() if key != "view_embedding"}, folder / "model.safetensors")
    refused("view_embedding is missing")
    (folder / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model\.json: cannot be read as a model's record"):
        load_exam_clip(folder, base)
    with pytest.raises(CheckpointError, match=r"is a record of kind|cannot be read"):
        load_backbone(folder)
