"""The detector against plain transcriptions of RetinaNet's definitions in numpy, float64, loop by loop."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from training.efficientnet import EfficientNet
from training.figures.detection import voc_area
from training.mammo_clip.detection import Detections, Detector, NetworkPart, Outputs, Reading, detections
from training.mammo_clip.detection import published_detector as published
from training.mammo_clip.detection_anchors import (
    BACKGROUND,
    IGNORED,
    POSITIVE,
    Matching,
    anchor_grid,
    decode,
    encode,
    match,
)
from training.mammo_clip.detection_boxes import clipped, overlaps, suppressed
from training.mammo_clip.detection_data import BoxedImages
from training.mammo_clip.detection_figures import figures_of, marks_of, mean_precision
from training.mammo_clip.detection_levels import levels_of
from training.mammo_clip.detection_losses import FocalSettings, Target, detection_losses
from training.mammo_clip.model import EfficientNetEncoder, ImageFeatures
from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.pyramid import PyramidEncoder

SIZES = [(6, 5), (3, 3), (2, 2), (1, 1), (1, 1)]
CPU = torch.device("cpu")


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def plain_anchors(sizes, registered):
    found = []
    for level, (rows, columns) in zip(range(3, 8), sizes, strict=True):
        stride = 2**level
        for row in range(rows):
            for column in range(columns):
                x, y = (column * stride + 0.5, row * stride + 0.5) if registered else ((column + 0.5) * stride,) * 2
                y = y if registered else (row + 0.5) * stride
                for ratio in (0.5, 1.0, 2.0):
                    for power in (0, 1, 2):
                        area = (2 ** (level + 2) * 2 ** (power / 3)) ** 2
                        width = math.sqrt(area / ratio)
                        found.append((x - width / 2, y - width * ratio / 2, x + width / 2, y + width * ratio / 2))
    return np.array(found)


def random_boxes(rng, count, side=90.0):
    corner = rng.uniform(0, side / 2, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(2, side / 2, (count, 2))], axis=1)


def as_tensor(values):
    return torch.tensor(np.asarray(values), dtype=torch.float32)


@pytest.mark.parametrize("registered", [False, True])
def test_anchors_equal_the_transcription(registered):
    found = anchor_grid(SIZES, registered=registered, device=CPU).numpy()
    np.testing.assert_allclose(found, plain_anchors(SIZES, registered), atol=1e-3)


def test_matching_equals_the_transcription():
    rng = np.random.default_rng(1)
    anchors = plain_anchors(SIZES, False)
    states = set()
    for count in (0, 1, 4, 9):
        boxes = random_boxes(rng, count)
        state, which = match(as_tensor(anchors), as_tensor(boxes).view(-1, 4), Matching())
        for anchor, one, box in zip(anchors, state.tolist(), which.tolist(), strict=True):
            shared = [iou(anchor, other) for other in boxes] or [0.0]
            best = max(shared)
            assert one == (POSITIVE if best >= 0.5 else BACKGROUND if best < 0.4 else IGNORED)
            assert one != POSITIVE or shared[box] == best
            states.add(one)
    assert states == {POSITIVE, BACKGROUND, IGNORED}


def test_best_anchor_of_a_box_too_small_for_any_is_positive_where_asked():
    anchors, box = anchor_grid(SIZES, registered=False, device=CPU), torch.tensor([[10.0, 10.0, 14.0, 14.0]])
    assert not (match(anchors, box, Matching())[0] == POSITIVE).any()
    state, which = match(anchors, box, Matching(best_too=True))
    shared = overlaps(anchors, box)[:, 0]
    assert set((state == POSITIVE).nonzero()[:, 0].tolist()) == set((shared == shared.max()).nonzero()[:, 0].tolist())
    assert (which == 0).all()


def plain_code(box, anchor):
    (left, top, right, bottom), (a_left, a_top, a_right, a_bottom) = box, anchor
    width, height = a_right - a_left, a_bottom - a_top
    x, y = (left + right) / 2 - (a_left + a_right) / 2, (top + bottom) / 2 - (a_top + a_bottom) / 2
    growth = math.log((right - left) / width), math.log((bottom - top) / height)
    return x / width / 0.1, y / height / 0.1, growth[0] / 0.2, growth[1] / 0.2


def test_codes_equal_the_transcription_and_decode_to_their_boxes():
    rng = np.random.default_rng(2)
    boxes, anchors = random_boxes(rng, 20), random_boxes(rng, 20)
    codes = encode(as_tensor(boxes), as_tensor(anchors))
    wanted = []
    for box, anchor in zip(boxes, anchors, strict=True):
        wanted.append(plain_code(box, anchor))
    np.testing.assert_allclose(codes.numpy(), wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(decode(codes, as_tensor(anchors)).numpy(), boxes, atol=1e-3)


def test_decoded_sides_stay_finite():
    assert torch.isfinite(decode(torch.full((1, 4), 1e6), torch.tensor([[0.0, 0.0, 32.0, 32.0]]))).all()


def plain_losses(logits, codes, anchors, targets, alpha):
    """One image after the other, one anchor after the other."""
    of_classes, of_boxes = [], []
    for row, (boxes, classes) in enumerate(targets):
        total, regression, positives = 0.0, [], 0
        for number, anchor in enumerate(anchors):
            shared = [iou(anchor, box) for box in boxes] or [0.0]
            best = int(np.argmax(shared))
            if 0.4 <= shared[best] < 0.5:
                continue
            positive = shared[best] >= 0.5
            positives += positive
            for number_of_class in range(logits.shape[2]):
                p = 1 / (1 + math.exp(-logits[row, number, number_of_class]))
                if positive and classes[best][number_of_class]:
                    total += -alpha * (1 - p) ** 2 * math.log(p)
                else:
                    total += -(1 - alpha) * p**2 * math.log(1 - p)
            if positive:
                wanted = plain_code(boxes[best], anchor)
                for found, value in zip(codes[row, number], wanted, strict=True):
                    d = abs(found - value)
                    regression.append(4.5 * d * d if d <= 1 / 9 else d - 1 / 18)
        of_classes.append(total / max(positives, 1))
        of_boxes.append(np.mean(regression) if regression else 0.0)
    return np.mean(of_classes), np.mean(of_boxes)


@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_losses_equal_the_transcription(alpha):
    """Three images: one box of two classes and one of one, no box at all, several boxes."""
    rng = np.random.default_rng(3)
    anchors = plain_anchors(SIZES, False)
    logits = rng.normal(-2, 2, (3, len(anchors), 2))
    codes = rng.normal(0, 1, (3, len(anchors), 4))
    codes[0, :, 0] = 0.05
    truth = [
        (np.array([[2.0, 3.0, 34.0, 36.0], [20.0, 5.0, 75.0, 60.0]]), [[True, True], [False, True]]),
        (np.zeros((0, 4)), []),
        (random_boxes(rng, 4, 80.0), [[True, False]] * 4),
    ]
    targets = [
        Target(as_tensor(boxes).view(-1, 4), torch.tensor(classes, dtype=torch.bool).view(-1, 2))
        for boxes, classes in truth
    ]
    found = detection_losses(
        as_tensor(logits), as_tensor(codes), as_tensor(anchors), targets, Matching(), FocalSettings(alpha)
    )
    wanted = plain_losses(logits, codes, anchors, truth, alpha)
    np.testing.assert_allclose([value.item() for value in found], wanted, rtol=1e-4)
    assert wanted[1] > 0.0


def test_batch_without_any_box_has_a_loss_and_gradients():
    codes = torch.zeros(1, 9, 4, requires_grad=True)
    logits = torch.full((1, 9, 1), -4.0, requires_grad=True)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, 1, dtype=torch.bool))
    anchors = anchor_grid([(1, 1), (0, 0), (0, 0), (0, 0), (0, 0)], registered=False, device=CPU)
    of_classes, of_boxes = detection_losses(logits, codes, anchors, [nothing], Matching(), FocalSettings())
    (of_classes + of_boxes).backward()
    assert of_boxes.item() == 0.0
    assert (logits.grad > 0).all()


def plain_suppression(boxes, probabilities, most_overlap):
    left, kept = list(np.argsort(-probabilities, kind="stable")), []
    while left:
        kept.append(left.pop(0))
        left = [other for other in left if iou(boxes[kept[-1]], boxes[other]) <= most_overlap]
    return kept


def test_suppression_equals_the_transcription():
    rng = np.random.default_rng(4)
    boxes, probabilities = random_boxes(rng, 60, 60.0), rng.permutation(60) / 60
    kept = suppressed(as_tensor(boxes), as_tensor(probabilities), 0.5, 100).tolist()
    assert kept == plain_suppression(boxes, probabilities, 0.5)
    assert 5 < len(kept) < 60
    assert suppressed(as_tensor(boxes), as_tensor(probabilities), 0.5, 3).tolist() == kept[:3]


def test_detections_are_suppressed_by_class_cut_to_the_canvas_and_counted():
    anchors = torch.tensor([[0.0, 0.0, 20.0, 20.0], [1.0, 0.0, 21.0, 20.0], [-10.0, 30.0, 10.0, 70.0]])
    logits = torch.tensor([[[2.0, -9.0], [1.0, 3.0], [0.0, -1.0]]])
    outputs = Outputs(logits, torch.zeros(1, 3, 4), anchors)
    (found,) = detections(outputs, (60, 40), Reading(0.3, 0.5, 100))
    assert found.classes.tolist() == [1, 0, 0]
    assert found.boxes.tolist() == [[1.0, 0.0, 21.0, 20.0], [0.0, 0.0, 20.0, 20.0], [0.0, 30.0, 10.0, 60.0]]
    torch.testing.assert_close(found.probabilities, torch.sigmoid(torch.tensor([3.0, 2.0, 0.0])))
    (fewer,) = detections(outputs, (60, 40), Reading(0.3, 0.5, 2))
    assert fewer.classes.tolist() == [1, 0]


def test_boxes_outside_the_canvas_have_no_side():
    assert clipped(torch.tensor([[-9.0, -9.0, -1.0, 80.0]]), 60, 40).tolist() == [[0.0, 0.0, 0.0, 60.0]]


def images_of(truth, classes):
    """Images of nothing with boxes of random classes, four a patient."""
    targets = tuple(
        Target(as_tensor(boxes).view(-1, 4), classes) for boxes, classes in zip(truth, classes, strict=True)
    )
    count = len(truth)
    rows, patients = tuple(map(str, range(count))), tuple(f"p{number // 4}" for number in range(count))
    plane = np.zeros((90, 90), np.uint8)
    return BoxedImages([plane] * count, targets, rows, patients, tuple(not len(boxes) for boxes in truth))


def plain_average_precision(found, truth, least):
    """VOC: each detection in order of probability is right if its best box is not taken; precision made falling."""
    every = [(p, image, box) for image, (boxes, ps) in enumerate(found) for box, p in zip(boxes, ps, strict=True)]
    taken, right = set(), []
    for _, image, box in sorted(every, key=lambda one: -one[0]):
        shared = [iou(box, other) for other in truth[image]] or [0.0]
        best = int(np.argmax(shared))
        right.append(shared[best] >= least and (image, best) not in taken)
        if shared[best] >= least:
            taken.add((image, best))
    hits = np.cumsum(right)
    recall, precision = hits / sum(map(len, truth)), hits / np.arange(1, len(right) + 1)
    area, before = 0.0, 0.0
    for number, value in enumerate(recall):
        area += (value - before) * precision[number:].max()
        before = value
    return area


@pytest.mark.parametrize("least", [0.25, 0.5])
def test_average_precision_equals_the_transcription(least):
    rng = np.random.default_rng(5)
    truth = [random_boxes(rng, rng.integers(0, 4)) for _ in range(12)]
    found = []
    for boxes in truth:
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 6, (2 * len(boxes), 4))
        guesses = np.concatenate([near, random_boxes(rng, 3)])
        found.append((guesses, rng.uniform(0.05, 1, len(guesses))))
    images = images_of(truth, [torch.ones(len(boxes), 1, dtype=torch.bool) for boxes in truth])
    given = [
        Detections(as_tensor(b).view(-1, 4), as_tensor(p).view(-1), torch.zeros(len(p), dtype=torch.int64))
        for b, p in found
    ]
    wanted = plain_average_precision(found, truth, least)
    assert 0.05 < wanted < 0.95
    assert voc_area(marks_of(given, images, 0, least)) == pytest.approx(wanted, abs=1e-6)
    assert mean_precision(given, images, 1, least) == pytest.approx(wanted, abs=1e-6)
    interval = figures_of(given, images, ["Mass"])[0].precision[least]
    assert interval.value == pytest.approx(wanted, abs=1e-6)
    assert interval.low <= wanted <= interval.high


def test_figures_count_each_class_by_itself():
    boxes = np.array([[10.0, 10.0, 40.0, 40.0]])
    classes = [torch.tensor([[True, False]]), torch.tensor([[False, True]]), torch.zeros(0, 2, dtype=torch.bool)]
    images = images_of([boxes, boxes, np.zeros((0, 4))], classes)
    found = [Detections(as_tensor(boxes), torch.tensor([0.9]), torch.tensor([0])) for _ in range(3)]
    mass, calcification = figures_of(found, images, ["Mass", "Suspicious_Calcification"])
    assert mass.precision[0.5].value == 1.0
    assert calcification.precision[0.5].value == 0.0
    assert mass.curve.normal_views == 1
    assert dict(mass.curve.at)[1.0].value == 1.0
    assert dict(mass.curve.at)[0.3].value == 0.0


class Shape(nn.Module):
    """An encoder of one's own: a map of stride 16."""

    out_channels = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 16, 16)

    def features(self, images):
        feature_map = self.conv(images)
        return ImageFeatures(feature_map.mean((2, 3)), feature_map)


@pytest.mark.parametrize(
    ("variant", "blocks", "channels"), [("b5", (26, 37), (176, 512, 2048)), ("b2", (15, 21), (120, 352, 1408))]
)
def test_published_levels_have_the_published_blocks_channels_and_sizes(variant, blocks, channels):
    with torch.device("meta"):
        detector = published(variant, 1)
        images = torch.zeros(1, 3, 512, 512)
    levels = levels_of(detector.efficientnet, "published")
    maps = levels.read(images)
    assert levels.channels == channels
    assert [tuple(one.shape) for one in maps] == [
        (1, channels[0], 32, 32),
        (1, channels[1], 16, 16),
        (1, channels[2], 16, 16),
    ]
    ends = detector.efficientnet.stage_ends
    assert (ends[4], ends[6] - 1) == blocks
    assert [one.shape[2] for one in detector.fpn(maps)] == [64, 32, 16, 8, 4]
    assert detector(images).logits.shape == (1, (64**2 + 32**2 + 16**2 + 8**2 + 4**2) * 9, 1)


def test_constant_padding_of_b5_differs_in_two_strided_layers():
    """The released detectors take every layer's input for 456 pixels, the dual encoders for what it was at 456."""
    pads = {}
    for mode in ("static", "constant"):
        with torch.device("meta"):
            encoder = EfficientNet("b5", padding=mode)
        convs = [encoder._conv_stem, *(block._depthwise_conv for block in encoder._blocks)]
        pads[mode] = [(conv.uneven or (conv.padding[0],) * 4, conv.stride[0]) for conv in convs]
    differing = [
        (number - 1, one[0], other[0])
        for number, (one, other) in enumerate(zip(pads["static"], pads["constant"], strict=True))
        if one != other
    ]
    assert differing == [(13, (1, 1, 1, 1), (0, 1, 0, 1)), (27, (2, 2, 2, 2), (1, 2, 1, 2))]


@pytest.mark.parametrize("size", [(100, 68), (188, 116)])
@pytest.mark.parametrize(
    ("encoder", "channels"),
    [(lambda: EfficientNetEncoder("lite0", channels=1, padding="registered"), 1), (PyramidEncoder, 1), (Shape, 1)],
)
@pytest.mark.parametrize("registered", [True, False])
def test_any_encoder_gives_levels_at_strides_8_to_128_for_sizes_of_4(encoder, channels, registered, size):
    with torch.device("meta"):
        detector = Detector(encoder(), 2, NetworkPart("strides", 8, registered=registered)).eval()
        outputs = detector(torch.zeros(1, channels, *size))
        first = detector.fpn(detector.levels.read(torch.zeros(1, channels, *size)))[0]
    assert first.shape[2:] == (-(-size[0] // 8), -(-size[1] // 8))
    assert outputs.logits.shape[1] == outputs.codes.shape[1] == len(outputs.anchors)


def test_gradients_in_bfloat16_of_maps_one_cell_wide_are_those_of_float32():
    """oneDNN's own are of memory that nobody wrote, see `FeaturePyramid`; other values stood there before."""
    torch.manual_seed(0)
    detector = Detector(Shape(), 1, NetworkPart("strides", 8, registered=False))
    detector.fpn.to(memory_format=torch.channels_last)
    found = []
    for precise in (True, False):
        detector.zero_grad()
        del [torch.full((count,), math.nan) for count in (64, 256, 576, 1024, 4096)][:]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            _, _, _, p6, p7 = detector.fpn(detector.levels.read(torch.ones(2, 1, 64, 48)))
        (p6.float().square().sum() + p7.float().square().sum()).backward()
        found.append(detector.fpn.P7_2.weight.grad.clone())
    torch.testing.assert_close(*found, rtol=0.05, atol=1e-3)


def test_published_levels_of_another_encoder_are_refused():
    with pytest.raises(RecipeError, match=r"EfficientNet"):
        levels_of(Shape(), "published")


def test_frozen_encoder_stays_in_eval_mode_and_gets_no_gradient():
    encoder = EfficientNetEncoder("lite0", channels=1, padding="registered")
    detector = Detector(encoder, 1, NetworkPart("strides", 8, registered=True), frozen=True).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    detector(torch.rand(2, 1, 64, 64)).logits.sum().backward()
    assert not encoder.training
    assert detector.fpn.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert detector.fpn.P3_1.weight.grad is not None
    assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in before.items())


def test_trained_encoder_keeps_its_statistics_where_asked():
    encoder = EfficientNetEncoder("lite0", channels=1, padding="registered")
    detector = Detector(encoder, 1, NetworkPart("strides", 8, registered=True)).train()
    assert not encoder._bn0.training
    detector.frozen_statistics = False
    assert detector.train().efficientnet._bn0.training


def test_untrained_detector_says_one_in_a_hundred_everywhere():
    detector = Detector(Shape(), 3, NetworkPart("strides", 8, registered=False)).eval()
    outputs = detector(torch.rand(1, 1, 64, 48))
    torch.testing.assert_close(torch.sigmoid(outputs.logits), torch.full_like(outputs.logits, 0.01))
    assert not outputs.codes.any()
