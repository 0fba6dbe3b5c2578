"""What views answer: heat and logits that are known, on prepared images that are known."""

from dataclasses import replace

import numpy as np
import pytest

from node.answering import ViewAnswer, absence_words, answers_of, question_of
from node.errors import QuestionError
from node.mammography.anatomy import hung_orientation
from node.mammography.contract import Calibration, OperatingPoint, QueryAnswer, QueryContract
from node.mammography.pixels import PreparedView, prepare_display, preset
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, View
from tests.mammograms import COLUMNS, ROWS, mammogram

HEIGHT, WIDTH, CELLS = 304, 192, (38, 24)
CONTRACT = QueryContract(
    contract_version=1,
    name="exam_query",
    version="1",
    preset=f"fit-{HEIGHT}x{WIDTH}",
    views=tuple(view.name for view in STANDARD_VIEWS),
    outputs=("query_heatmaps", "query_logits"),
    input_shape=(HEIGHT, WIDTH),
    wire_type="float32",
    embed_dim=8,
    heatmap_shape=CELLS,
    heatmap_stride=(8.0, 8.0),
    heatmap_offset=(0.5, 0.5),
    calibration=Calibration(2.0, 1.0, "phantoms", 0.2),
    operating_point=OperatingPoint(0.5, 0.5),
    calibrated_on_patients=False,
    weights_hash="0" * 64,
    text_space="t",
    variant="f32",
)


@pytest.fixture(scope="module")
def prepared() -> dict[View, PreparedView]:
    wanted = preset(CONTRACT.preset)
    views = {}
    for view in STANDARD_VIEWS:
        image = mammogram(view, "1.2.3")
        stored = np.frombuffer(image.PixelData, "<u2").reshape(ROWS, COLUMNS)
        views[view] = prepare_display(stored.astype(np.float32) / np.float32(4095), view.laterality, wanted)
    return views


ORIENTATIONS = {view: hung_orientation(view, view.laterality) for view in STANDARD_VIEWS}


def answered(heat_at: dict[View, tuple[float, float]], prepared: dict[View, PreparedView]) -> QueryAnswer:
    """Heat of 1.0 in a disc of 20 model pixels around points (x, y) in stored pixels; logit 1 there and else -3."""
    heatmaps = np.zeros((4, 1, *CELLS), np.float32)
    logits = np.full((4, 1), -3.0, np.float32)
    rows, columns = np.mgrid[: CELLS[0], : CELLS[1]]
    for view, at in heat_at.items():
        (x, y) = prepared[view].placement.to_model(np.array([at]))[0]
        number = STANDARD_VIEWS.index(view)
        distance = np.hypot(0.5 + 8.0 * columns - x, 0.5 + 8.0 * rows - y)
        heatmaps[number, 0] = np.exp(-((distance / 14.0) ** 2))
        logits[number] = 1.0
    return QueryAnswer(logits, heatmaps)


def asked(
    text: str, heat_at: dict[View, tuple[float, float]], prepared: dict[View, PreparedView]
) -> dict[View, ViewAnswer]:
    answer = answered(heat_at, prepared)
    return {
        one.view: one for one in answers_of(question_of(text), 0, answer, CONTRACT, prepared, orientations=ORIENTATIONS)
    }


def test_a_mark_stands_where_the_heat_is_in_stored_pixels(prepared: dict[View, PreparedView]) -> None:
    answers = asked("spiculated mass", {LCC: (120.0, 250.0), RMLO: (400.0, 380.0)}, prepared)
    assert [view.name for view, answer in answers.items() if answer.shown] == ["LCC", "RMLO"]
    for view, (x, y) in ((LCC, (120.0, 250.0)), (RMLO, (400.0, 380.0))):
        (mark,) = answers[view].marks
        assert mark.centre == pytest.approx((x, y), abs=4)
        assert mark.box.left < x < mark.box.right
        assert mark.box.top < y < mark.box.bottom
        assert mark.contour[0] == mark.contour[-1]
    assert answers[LCC].index == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert answers[RCC].index == pytest.approx(1 / (1 + np.exp(5.0)))
    assert answers[RCC].marks == ()


def test_side_and_view_are_asked_of_no_other(prepared: dict[View, PreparedView]) -> None:
    everywhere = dict.fromkeys(STANDARD_VIEWS, (250.0, 320.0))
    answers = asked("mass in the left MLO", everywhere, prepared)
    assert [view for view, answer in answers.items() if answer.asked] == [LMLO]
    assert answers[RMLO].remarks == ("asked for the left breast, this is RMLO",)
    assert answers[LCC].index is None
    assert answers[LCC].marks == ()


def test_upper_heat_is_no_answer_to_a_lower_place(prepared: dict[View, PreparedView]) -> None:
    upper = {LMLO: (150.0, 180.0)}
    assert asked("mass in the upper left breast", upper, prepared)[LMLO].shown
    lower = asked("mass in the lower left breast", upper, prepared)[LMLO]
    assert not lower.shown
    assert lower.marks == ()
    assert lower.heat is not None
    assert lower.heat < 0.5
    assert lower.index == asked("mass", upper, prepared)[LMLO].index


def test_what_a_view_cannot_show_is_said_and_not_applied(prepared: dict[View, PreparedView]) -> None:
    answer = asked("mass in the outer left breast", {LMLO: (150.0, 180.0)}, prepared)[LMLO]
    assert answer.shown
    assert answer.remarks == ("outer: not applied, a view MLO cannot show it",)


def test_a_denied_phrase_is_answered_as_absence(prepared: dict[View, PreparedView]) -> None:
    answers = asked("no mass", {LCC: (120.0, 250.0)}, prepared)
    assert all(answer.marks == () for answer in answers.values())
    assert absence_words(answers[RCC]) == "not seen: the absence is not contradicted"
    words = absence_words(answers[LCC])
    assert words.startswith("absence cannot be confirmed: heat 0.9") or words.startswith(
        "absence cannot be confirmed: heat 1.0"
    )


def test_probability_and_heat_are_both_needed(prepared: dict[View, PreparedView]) -> None:
    answer = answered({LCC: (120.0, 250.0)}, prepared)
    question = question_of("mass")
    cold = replace(CONTRACT, operating_point=OperatingPoint(0.5, 2.0))
    unlikely = replace(CONTRACT, operating_point=OperatingPoint(0.99, 0.5))
    for contract in (cold, unlikely):
        answers = answers_of(question, 0, answer, contract, prepared, orientations=ORIENTATIONS)
        assert not any(one.shown or one.marks for one in answers)


def test_a_constant_image_answers_nothing(prepared: dict[View, PreparedView]) -> None:
    flat = prepare_display(np.full((ROWS, COLUMNS), 0.5, np.float32), LCC.laterality, preset(CONTRACT.preset))
    (one,) = answers_of(question_of("mass"), 0, answered({}, prepared), CONTRACT, {LCC: flat})
    assert not one.asked
    assert one.remarks == ("constant image",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 to 200 characters"),
        ("m" * 201, "1 to 200 characters"),
        ("in the left breast", "names no finding"),
        ("mass in the upper lower breast", "names two places"),
        ("mass without calcifications", "denies one of several"),
    ],
)
def test_a_phrase_that_cannot_be_understood_says_why(text: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        question_of(text)
