"""The command `factor`: train mappers on a frozen encoder, or ask a trained one for any phrase."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.mammo_clip.loading import LoadedModel
    from training.mammo_clip.open_vocabulary import Answer, Asker, Question

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MARKS = "marks.json"


def add_factor(commands: "Commands") -> None:
    """Add it to the parser of `python -m training`."""
    from training.mammo_clip.commands import explained

    parser = commands.add_parser(
        "factor", help="which maps carry a phrase: train FActOR, or ask for a phrase by --text"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a run or of an imported checkpoint")
    parser.add_argument("--vocabulary", type=Path, help="vocab.txt of an imported checkpoint's text tower")
    parser.add_argument("--recipe", type=Path, help="TOML file, training/recipes/factor*.toml: trains")
    parser.add_argument("--data", help="phantoms=CACHE, or a set with labels and boxes: vindr=TABLE.csv,IMAGES")
    parser.add_argument(
        "--cache", type=Path, help="folder of decoded images and encoded maps; OUT/encoded if not given"
    )
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")
    parser.add_argument("--text", help='a phrase: "spiculated mass in the upper outer breast", "no mass"; asks')
    parser.add_argument("--mapper", type=Path, help="folder that training wrote; to ask")
    parser.add_argument("--view", help="side and view of pictures whose header tells none: RCC, LCC, RMLO, LMLO")
    parser.add_argument("images", nargs="*", help="to ask: DICOM objects, PNG or JPEG, phantom:SEED for its four views")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.set_defaults(run=lambda arguments: explained(_factor, arguments))


def _factor(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.breasts import DataError

    if (arguments.recipe is None) == (arguments.text is None):
        raise DataError("factor: give --recipe and --data to train, or --text and --mapper to ask, not both")
    if arguments.text is None:
        _train(arguments)
    else:
        _ask(arguments)


def _train(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.breasts import DataError
    from training.mammo_clip.commands import list_problems
    from training.mammo_clip.factor_recipe import load_factor_recipe
    from training.mammo_clip.factor_run import CURVE_COLUMNS, prepare_run, run_factor, write_result
    from training.mammo_clip.factor_views import load_views
    from training.mammo_clip.loading import load_model
    from training.mammo_clip.run_folder import check_free, facts_of, start_folder

    recipe = load_factor_recipe(arguments.recipe)
    if arguments.data is None:
        raise DataError("factor: --data is missing: phantoms=CACHE, or vindr=TABLE.csv,IMAGES")
    check_free(arguments.out)
    model = load_model(arguments.model, arguments.vocabulary)
    if model.licence:
        print(f"licence: {model.licence}")
    data = recipe.data
    exams = (data.first_exam, data.training_exams, data.validation_exams)
    sets = load_views(arguments.data, exams, preset=model.input.preset, strict=arguments.strict)
    run = prepare_run(recipe, model, sets, arguments.cache or arguments.out / "encoded")
    problems = [*sets.problems, *run.training.problems, *run.validation.problems]
    list_problems(problems)
    counts = {
        "source": arguments.data.partition("=")[0],
        "training views": len(run.training),
        "validation views": len(run.validation),
        "model weights": model.weights_hash,
    }
    facts = facts_of(counts, None, 1, model.device)
    result = run_factor(run)
    start_folder(arguments.out, arguments.recipe, facts, problems, CURVE_COLUMNS)
    write_result(run, result, arguments.out, facts)
    figures = result.figures
    print(json.dumps({key: figures[key] for key in ("seeds", "chosen seed", "pointing over seeds")}, indent=1))
    print(f"{arguments.out}: seed {figures['chosen seed']}")


def _ask(arguments: argparse.Namespace) -> None:
    from node.mammography.views import STANDARD_VIEWS
    from training.mammo_clip.breasts import DataError
    from training.mammo_clip.loading import load_model
    from training.mammo_clip.open_vocabulary import ask, load_asker, read_images

    if arguments.mapper is None or not arguments.images:
        raise DataError("factor: to ask give --mapper FOLDER and images: DICOM objects, PNG, JPEG, or phantom:SEED")
    views = {view.name: view for view in STANDARD_VIEWS}
    if arguments.view is not None and arguments.view not in views:
        raise DataError(f"--view is {arguments.view}; there are {', '.join(views)}")
    model = load_model(arguments.model, arguments.vocabulary)
    asker, known = load_asker(model, arguments.mapper)
    question = ask(model, known, arguments.text)
    images = read_images(arguments.images, model, views.get(arguments.view))
    answers = [asker.answer(question, image) for image in images]
    _write(arguments.out, model, asker, question, answers)


def _write(out: Path, model: "LoadedModel", asker: "Asker", question: "Question", answers: "list[Answer]") -> None:
    """A picture of each image with its heat, marks.json, and the words on the screen."""
    from training.figures.heat_page import HeatView, pair

    out.mkdir(parents=True, exist_ok=True)
    statement = question.statement
    print(f"{statement.finding!r}, {'denied' if statement.negated else 'asked for'}, {statement.location.words()}")
    for number, answer in enumerate(answers):
        view = HeatView(
            answer.image.name, answer.words, answer.image.plane, answer.heat, marks=[box.box for box in answer.boxes]
        )
        pair(view).save(out / f"{number:03d}-{answer.image.name}.png")
        for remark in answer.remarks:
            print(f"{answer.image.name}: {remark}")
        print(f"{answer.image.name}: {answer.words}, {len(answer.boxes)} marks")
    table = marks_table(model, question, answers)
    (out / MARKS).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def marks_table(model: "LoadedModel", question: "Question", answers: "list[Answer]") -> dict[str, Any]:
    """What MARKS holds: the phrase as it was understood, and for each image the answer with its marks."""
    from training.mammo_clip.open_vocabulary import stored_box

    statement = question.statement
    return {
        "phrase": question.phrase,
        "finding": statement.finding,
        "denied": statement.negated,
        "place": statement.location.words() if statement.location.position or statement.location.depth else "",
        "side": statement.location.side.value if statement.location.side else "",
        "view": statement.view,
        "nearest trained finding": question.like,
        "remarks": list(question.remarks),
        "model_weights": model.weights_hash,
        "images": [
            {
                "image": answer.image.name,
                "view": str(answer.image.view) if answer.image.view else None,
                "answer": answer.words,
                "presence": None if answer.presence != answer.presence else round(answer.presence, 4),
                "remarks": list(answer.remarks),
                "marks": [
                    {
                        "box": [round(edge, 2) for edge in box.box],
                        "stored_box": stored_box(box, answer.image),
                        "peak_heat": round(box.peak_heat, 3),
                    }
                    for box in answer.boxes
                ],
            }
            for answer in answers
        ],
    }
