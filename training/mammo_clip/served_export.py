"""A trained dual encoder, its FActOR mapper and heads to be trained -> exam_encoder, exam_query and text_encoder."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from node.inference.triton_config import write_config
from node.mammography.findings import FINDING_KINDS
from node.mammography.regions import HeatGrid
from node.mammography.views import STANDARD_VIEWS
from training.deployment import round_values, served_module
from training.exam_encoder import ExamOutputs
from training.export import store_half, trace_module, write_graph
from training.finish import HeadLogits
from training.mammo_clip.breasts import DataError
from training.mammo_clip.building import VOCABULARY_FILE
from training.mammo_clip.factor import HeatSettings, SharedMapper, phrase_embedding
from training.mammo_clip.factor_folder import PHRASES
from training.mammo_clip.factor_phrases import embed, finding_embeddings, plain_phrase
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.localising import heat_grid
from training.mammo_clip.model import MammoClip
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES
from training.mammo_clip.phrases import negated_phrases, phrases
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.served import ClipViews, ServedClip, ServedQuery, ServedText
from training.mammo_clip.served_finish import NAMES, Finished, finish, heat_scale, logits_of
from training.mammo_clip.served_heads import ServedHeads
from training.mammo_clip.served_recipe import FIXED, ServedRecipe
from training.mammo_clip.served_summaries import ClipSummaries, EvidenceGraph, summarise
from training.mammo_clip.served_training import Probes, TrainedHeads, fit_probes, target_truth, train_seeds
from training.phantoms import CALIBRATION_SEED, GENERATOR_VERSION, TRAIN_SEED, VALIDATION_SEED
from training.weights import weights_hash

MODELS = ("exam_encoder", "exam_query", "text_encoder")
VARIANT = "fp16-stored onnx"
TARGETS = (*NAMES, "malignancy")
_NAMES = [GRAMMAR_NAMES[kind] for kind in FINDING_KINDS]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What is exported: a dual encoder with its vocabulary, a mapper and how its heat is made."""

    model: LoadedModel
    mapper: SharedMapper
    settings: HeatSettings
    vocabulary: Path
    phrases: Path | None = None
    """The file that says what the mapper learnt from, copied beside the text encoder."""
    fixed: Tensor | None = None
    """(C, K): the mapper's weights as one convolution."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The frozen part with rounded weights, the common hash of the text space, and where cells lie."""

    clip: MammoClip
    views: ClipViews
    text_space: str
    grid: HeatGrid
    cells: tuple[int, int]
    phrase_vectors: Tensor
    """(P, D): embeddings of `phrases()`."""


def parts_of(source: Source, recipe: ServedRecipe) -> Parts:
    """The served form of the frozen part. Raises CheckpointError without a text tower, a vocabulary, or weights."""
    model = source.model
    if recipe.heat == FIXED and source.fixed is None:
        raise CheckpointError('the mapper\'s folder has no fixed weights; train it again, or set heat = "mapper"')
    fixed = source.fixed if recipe.heat == FIXED else None
    clip, mapper = served_module(model.clip()), served_module(source.mapper)
    sees = model.input
    with torch.inference_mode():
        findings, prompts = embed(model, [plain_phrase(name).text for name in _NAMES]), prompt_pairs(model, recipe)
        vectors = embed(model, [phrase.text for phrase in phrases()])
        cells = model.features(torch.zeros(1, sees.height, sees.width)).feature_map.shape
    noise = torch.rand(2, sees.channels, sees.height, sees.width, generator=torch.Generator().manual_seed(0))
    grid = heat_grid(model.image_encoder, lambda images: _feature_map(model.image_encoder, images), noise)
    views = ClipViews(clip, mapper, sees, findings.clone(), prompts.clone(), source.settings, fixed).eval()
    round_values(views)
    vocabulary = source.vocabulary.read_bytes()
    return Parts(clip, views, text_space_of(clip, vocabulary), grid, (cells[2], cells[3]), vectors.clone())


def _feature_map(encoder: nn.Module, images: Tensor) -> Tensor:
    feature_map: Tensor = encoder.features(images).feature_map  # type: ignore[operator]
    return feature_map


def prompt_pairs(model: LoadedModel, recipe: ServedRecipe) -> Tensor:
    """(T, 2, D): for each finding what says it is not there and what says it is; last, malignancy."""
    positive = list(finding_embeddings(model, _NAMES))
    negative = []
    for name in _NAMES:
        texts = [text for phrase in negated_phrases() if phrase.name == name for text in phrase.wordings]
        negative.append(phrase_embedding(embed(model, [*texts, *recipe.malignancy.negative])))
    positive.append(phrase_embedding(embed(model, recipe.malignancy.positive)))
    negative.append(phrase_embedding(embed(model, recipe.malignancy.negative)))
    return torch.stack([torch.stack(negative), torch.stack(positive)], dim=1)


def text_space_of(clip: MammoClip, vocabulary: bytes) -> str:
    """A text space is that of one dual encoder with one vocabulary: a hash over all weights and the pieces."""
    weights = weights_hash({name: value.numpy() for name, value in clip.state_dict().items()})
    return hashlib.sha256(f"{weights}\0{hashlib.sha256(vocabulary).hexdigest()}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Heads of every seed, the best first, the probes in them, and the exams on which the rest is decided."""

    training: ClipSummaries
    validation: ClipSummaries
    calibrating: ClipSummaries
    scale: Tensor
    """(K): heat 1.0."""
    probes: Probes
    tried: list[TrainedHeads]

    @property
    def heads(self) -> ServedHeads:
        """Those that validation chose."""
        return self.tried[0].heads


def export_models(source: Source, recipe: ServedRecipe, cache: Path, work: Path, models: Path) -> dict[str, Any]:
    """Train the heads, finish, write all three models below `models`; returns what validation said.

    Summaries and that record (validation.json) go to `work`. Raises DataError where exams do not fit.
    """
    parts = parts_of(source, recipe)
    fitted = fit_heads(EvidenceGraph(parts.views, torch.get_num_threads()), recipe, cache, work)
    return write_fitted(source, recipe, parts, fitted, cache, (work, models))


def fit_heads(graph: EvidenceGraph, recipe: ServedRecipe, cache: Path, work: Path) -> Fitted:
    """Summaries of the exams, kept in `work`, and the heads of every seed. Raises DataError where exams do not fit."""
    work.mkdir(parents=True, exist_ok=True)
    heads, splits = recipe.heads, recipe.splits
    training = summarise(graph, cache, work, (TRAIN_SEED + heads.first_exam, heads.exams))
    validation = summarise(graph, cache, work, (VALIDATION_SEED, splits.validation))
    calibrating = summarise(graph, cache, work, (CALIBRATION_SEED, splits.calibration))
    for name, data in (("heads", training), ("validation", validation), ("calibration", calibrating)):
        _check_shown(name, data)
    scale = heat_scale(validation)
    probes = fit_probes(training, validation, heads)
    tried = train_seeds(training, validation, probes, scale, recipe)
    return Fitted(training, validation, calibrating, scale, probes, tried)


def write_fitted(
    source: Source, recipe: ServedRecipe, parts: Parts, fitted: Fitted, cache: Path, folders: tuple[Path, Path]
) -> dict[str, Any]:
    """Finish the chosen heads and write what `export_models` writes; `folders`: work, models."""
    work, models = folders
    judged = tuple(logits_of(fitted.heads, data, fitted.scale) for data in (fitted.validation, fitted.calibrating))
    finished = finish_parts(parts, (judged[0], judged[1]), fitted, cache)
    exam = ServedClip(parts.views, fitted.heads, fitted.scale).eval()
    hashes = write_models(source, recipe, parts, exam, finished, models)
    record = _record(recipe, fitted, finished) | {"weights_hash": hashes}
    (work / "validation.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def finish_parts(parts: Parts, judged: tuple[HeadLogits, HeadLogits], fitted: Fitted, cache: Path) -> Finished:
    """`finish` for logits of the validation and the calibration exams, whatever made them."""
    vectors = (parts.phrase_vectors, float(parts.views.logit_scale))
    return finish(judged, (fitted.validation, fitted.calibrating), vectors, parts.grid, cache)


def _check_shown(split: str, data: ClipSummaries) -> None:
    """Raises DataError unless each target is there in some views and not in others."""
    truth = target_truth(data).flatten(0, 1)
    for words, there in (("none shows", truth.any(0)), ("each shows", (~truth).any(0))):
        if missing := [name for name, found in zip(TARGETS, there.tolist(), strict=True) if not found]:
            raise DataError(
                f"{split}: of {len(data.seeds)} exams {words} {', '.join(missing)}; give the recipe more exams"
            )


def _record(recipe: ServedRecipe, fitted: Fitted, finished: Finished) -> dict[str, Any]:
    probes, tried = fitted.probes, fitted.tried
    return {
        "recipe": asdict(recipe),
        "generator": GENERATOR_VERSION,
        "probes": {
            name: {"penalty": penalty, "validation_auc": reached}
            for name, penalty, reached in zip(TARGETS, probes.penalties, probes.validation, strict=True)
        },
        "heads": {str(one.seed): one.validation for one in tried},
        "chosen_seed": tried[0].seed,
        **finished_record(finished, fitted.scale),
    }


def finished_record(finished: Finished, scale: Tensor) -> dict[str, Any]:
    """What finishing decided, for validation.json."""
    return {
        "heat_scale": dict(zip(NAMES, scale.tolist(), strict=True)),
        "calibration": finished.calibration,
        "operating_points": {
            name: point.as_table() for name, point in zip(NAMES, finished.operating_points, strict=True)
        },
        "phrases": {
            "heat_scale": finished.phrase_scale,
            "calibration": finished.phrase_calibration,
            "operating_point": finished.phrase_point,
        },
    }


def write_models(
    source: Source,
    recipe: ServedRecipe,
    parts: Parts,
    exam: ServedClip,
    finished: Finished,
    models: Path,
) -> dict[str, str]:
    """Write the three folders whole. Returns their weights' hashes by name."""
    query = ServedQuery(parts.views, torch.tensor(finished.phrase_scale)).eval()
    common = _common(source, recipe, parts)
    hashes = {
        "exam_encoder": write_exam_encoder(source, recipe, parts, exam, finished, models),
        "exam_query": write_graph(query_graph(query), common | query_contract(finished, parts), models / "exam_query"),
        "text_encoder": write_text_encoder(source, recipe, parts, models / "text_encoder"),
    }
    for name in MODELS[1:]:
        write_config(models / name)
    return hashes


def write_exam_encoder(
    source: Source, recipe: ServedRecipe, parts: Parts, exam: ServedClip, finished: Finished, models: Path
) -> str:
    """Write `exam_encoder` alone, whole. Returns its weights' hash."""
    folder, contract = models / "exam_encoder", _common(source, recipe, parts) | exam_contract(finished)
    digest = write_graph(exam_graph(exam), contract, folder)
    write_config(folder)
    return digest


def sample_inputs(views: ClipViews) -> dict[str, Tensor]:
    """Two exams to trace with."""
    sees = views.sees
    return {"views": torch.rand(2, 4, 1, sees.height, sees.width), "present": torch.ones(2, 4, dtype=torch.bool)}


def exam_graph(exam: ServedClip) -> onnx.ModelProto:
    """exam_encoder as a stored graph."""
    return store_half(trace_module(exam, sample_inputs(exam.views), ExamOutputs._fields, {}))


def query_graph(query: ServedQuery) -> onnx.ModelProto:
    """exam_query as a stored graph, Q not fixed."""
    width = query.views.phrases.shape[1]
    inputs = sample_inputs(query.views) | {"query_embeddings": torch.randn(2, 3, width)}
    axes = {name: {axis: "Q"} for name, axis in (("query_embeddings", 1), ("query_heatmaps", 2), ("query_logits", 2))}
    return store_half(trace_module(query, inputs, ("query_heatmaps", "query_logits"), axes))


def text_graph(clip: MammoClip) -> onnx.ModelProto:
    """text_encoder as a stored graph, T not fixed."""
    token_ids = torch.ones(2, 7, dtype=torch.int64)
    inputs = {"token_ids": token_ids, "mask": torch.ones_like(token_ids)}
    return store_half(trace_module(ServedText(clip), inputs, ("text_embeddings",), {name: {1: "T"} for name in inputs}))


def write_text_encoder(source: Source, recipe: ServedRecipe, parts: Parts, folder: Path) -> str:
    """The text tower with its vocabulary, and the phrases that the mapper learnt where they are known."""
    model = source.model
    assert model.tokenizer is not None  # phrases have been embedded
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = source.vocabulary.read_bytes()
    (folder / VOCABULARY_FILE).write_bytes(vocabulary)
    if source.phrases is not None:
        shutil.copyfile(source.phrases, folder / PHRASES)
    contract = {
        "contract_version": 1,
        "name": "text_encoder",
        "version": recipe.version,
        "outputs": ["text_embeddings"],
        "embed_dim": parts.phrase_vectors.shape[1],
        "max_tokens": model.max_length,
        "lower_case": model.tokenizer.lower_case,
        "vocabulary": VOCABULARY_FILE,
        "vocabulary_hash": hashlib.sha256(vocabulary).hexdigest(),
        "text_space": parts.text_space,
        "variant": VARIANT,
    }
    return write_graph(text_graph(parts.clip), contract, folder)


def _common(source: Source, recipe: ServedRecipe, parts: Parts) -> dict[str, Any]:
    """Fields of the two contracts that take views."""
    sees, grid = source.model.input, parts.grid
    return {
        "contract_version": 1,
        "version": recipe.version,
        "preset": sees.preset,
        "views": [view.name for view in STANDARD_VIEWS],
        "input_shape": [sees.height, sees.width],
        "wire_type": "float32",
        "embed_dim": parts.phrase_vectors.shape[1],
        "heatmap_shape": list(parts.cells),
        "heatmap_stride": list(grid.stride),
        "heatmap_offset": [round(value, 3) for value in grid.offset],
        "calibrated_on_patients": False,
        "text_space": parts.text_space,
        "variant": VARIANT,
    }


def exam_contract(finished: Finished) -> dict[str, Any]:
    """What exam_encoder's contract has beside the common fields."""
    points = zip(NAMES, finished.operating_points, strict=True)
    return {
        "name": "exam_encoder",
        "findings": list(NAMES),
        "outputs": list(ExamOutputs._fields),
        "calibration": finished.calibration,
        "operating_points": {name: {"probability": one.probability, "heat": one.heat} for name, one in points},
    }


def query_contract(finished: Finished, parts: Parts) -> dict[str, Any]:
    """What exam_query's contract has beside the common fields."""
    return {
        "name": "exam_query",
        "outputs": ["query_heatmaps", "query_logits"],
        "calibration": {"query_logits": finished.phrase_calibration},
        "operating_point": finished.phrase_point,
    }
