"""`python -m training export --run RUN`: a trained System A as the three models that are served."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.mammo_clip.loading import LoadedModel
    from training.mammo_clip.served_export import Source


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """What `export` takes for a run of System A, beside the recipe, the cache and the folder for what is made."""
    parser.add_argument(
        "--run", dest="model_run", type=Path, help="System A: a run, its epoch, or an imported checkpoint"
    )
    parser.add_argument("--mapper", type=Path, help="System A: what `factor` wrote")
    parser.add_argument("--vocabulary", type=Path, help="System A: vocab.txt of a checkpoint that was imported without")
    parser.add_argument("--preset", help="System A: how views are prepared, where the run learnt on parts of them")
    parser.add_argument("--models", type=Path, help="System A: folder for exam_encoder, exam_query and text_encoder")


def export_run(arguments: argparse.Namespace) -> None:
    """Run the command; an error that has words for the user ends it with them alone."""
    from training.mammo_clip.commands import explained

    explained(_export, arguments)


def _export(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.pretraining_recipe import RecipeError
    from training.mammo_clip.served_export import MODELS, export_models
    from training.mammo_clip.served_recipe import load_served_recipe

    if missing := [name for name in ("mapper", "models") if getattr(arguments, name) is None]:
        raise RecipeError(f"export of a run of System A needs --{' and --'.join(missing)}")
    recipe = load_served_recipe(arguments.recipe)
    source = source_of(arguments.model_run, arguments.mapper, arguments.vocabulary, arguments.preset)
    if source.model.licence:
        print(f"licence: {source.model.licence}")
    record = export_models(source, recipe, arguments.cache, arguments.out, arguments.models)
    for name in MODELS:
        size = (arguments.models / name / "1" / "model.onnx").stat().st_size
        print(f"{arguments.models / name}: {size / 1e6:.1f} MB, weights {record['weights_hash'][name]}")
    for name, point in record["operating_points"].items():
        marks, marked = point["marks_per_normal_view"], point["lesions_marked"]
        print(f"{name}: {marks:.3f} marks in a normal view, {marked:.3f} of lesion views marked (validation)")


def source_of(run: Path, mapper: Path, vocabulary: Path | None, preset_name: str | None = None) -> "Source":
    """The model of a folder and the mapper of another. Raises CheckpointError where they do not fit.

    `preset_name`: takes the place of the run's own; RecipeError where there is none of that name.
    """
    from training.mammo_clip.factor_folder import PHRASES, LoadedMapper, check_fits, load_baselines, load_mapper
    from training.mammo_clip.factor_run import FIXED
    from training.mammo_clip.loading import load_model
    from training.mammo_clip.served_export import Source

    model = load_model(run, vocabulary)
    if preset_name is not None:
        model = _seeing(model, preset_name)
    shared, settings, record = load_mapper(mapper)
    check_fits(mapper, LoadedMapper(shared, settings, record), model)
    known = mapper / PHRASES
    fixed, pieces = load_baselines(mapper).get(FIXED), _vocabulary(model, vocabulary)
    return Source(model, shared, settings, pieces, known if known.exists() else None, fixed)


def _seeing(model: "LoadedModel", preset_name: str) -> "LoadedModel":
    from node.errors import SettingsError
    from node.mammography.pixels import preset
    from training.mammo_clip.pretraining_recipe import RecipeError

    try:
        views = preset(preset_name)
    except SettingsError as error:
        raise RecipeError(f"--preset: {error}") from error
    return replace(model, input=replace(model.input, preset=preset_name, height=views.height, width=views.width))


def _vocabulary(model: "LoadedModel", given: Path | None) -> Path:
    from training.mammo_clip.building import VOCABULARY_FILE
    from training.mammo_clip.released import CheckpointError

    path = given or model.folder / VOCABULARY_FILE
    if not path.exists():
        raise CheckpointError(
            f"{model.folder}: has no vocabulary; give the vocab.txt of its text tower: --vocabulary FILE"
        )
    return path
