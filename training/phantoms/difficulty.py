"""How hard the phantoms are for what should fail: image statistics, a frozen ImageNet trunk, one view of a pair.

Run as `python -m training.phantoms.difficulty`; it prints an AUC for each finding. Folds are by exam.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from node.mammography.findings import FindingKind
from node.mammography.views import RCC, STANDARD_VIEWS, Laterality
from training.phantoms.exam import GENERATOR_VERSION, VALIDATION_SEED, PhantomExam, make_exam
from training.phantoms.pairs import make_asymmetry_pair, make_mass_pair
from training.phantoms.render import RenderedView, render_view
from training.phantoms.texture import resample

PIXEL_MM = 0.28
PROBE_ROWS = 760
FOLDS = 5

Values = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]


Probe = Callable[[Sequence[FloatArray]], Values]
"""From pictures of one size to their features, (pictures, features)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One view: its statistics, the probe's features (none without a probe), what it shows, and its exam."""

    statistics: Values
    features: Values
    findings: frozenset[FindingKind]
    exam: int


def auc(logits: Values, positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks, ties shared."""
    order = np.argsort(logits, kind="stable")
    ranks = np.empty(len(logits))
    _, inverse, counts = np.unique(logits[order], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks[order] = (last - (counts - 1) / 2.0)[inverse]
    n = int(positive.sum())
    rest = len(logits) - n
    return float((ranks[positive].sum() - n * (n + 1) / 2.0) / (n * rest))


def fit_logistic(x: Values, y: Values, penalty: float) -> Values:
    """Weights of a ridge-penalised logistic regression by Newton steps; the last weight is the bias."""
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 1e-6
    weights = np.zeros(design.shape[1])
    for _ in range(12):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (p - y) + ridge * weights
        curve = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        weights -= np.linalg.solve(curve, slope)
    return weights


def cross_validated_auc(
    x: Values, positive: npt.NDArray[np.bool_], exam: npt.NDArray[np.int_], penalty: float
) -> float:
    """AUC of logits predicted on held-out exams, FOLDS folds, inputs standardised on the training folds."""
    logits = np.zeros(len(x))
    for fold in range(FOLDS):
        held = exam % FOLDS == fold
        mean, spread = x[~held].mean(axis=0), x[~held].std(axis=0) + 1e-9
        weights = fit_logistic((x[~held] - mean) / spread, positive[~held].astype(float), penalty)
        scaled = (x[held] - mean) / spread
        logits[held] = scaled @ weights[:-1] + weights[-1]
    return auc(logits, positive)


def image_statistics(pixels: FloatArray) -> Values:
    """Grey levels, and at six octaves of a difference of Gaussians its spread, extremes and tails, in the breast."""
    pixels = pixels[: pixels.shape[0] // 32 * 32, : pixels.shape[1] // 32 * 32]
    inside = ndimage.distance_transform_edt(pixels[::4, ::4] > 0.05) > 3
    inside = np.kron(inside, np.ones((4, 4), dtype=np.bool_))
    grey = pixels[inside]
    if grey.size < 100:
        return np.zeros(5 + 9 + 6 * 8)
    values = [grey.mean(), grey.std(), _skew(grey), _kurtosis(grey), inside.mean()]
    values += list(np.percentile(grey, (1, 5, 10, 25, 50, 75, 90, 95, 99)))
    level, mask = pixels, inside
    for _ in range(6):
        band = (level - ndimage.gaussian_filter(level, 1.2, truncate=2.5))[mask]
        tails = [(band > k * band.std()).mean() for k in (3.0, 5.0, 8.0)]
        values += [band.std(), band.max(), band.min(), _skew(band), _kurtosis(band), *tails]
        level = 0.25 * (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2])
        mask = mask[::2, ::2]
    return np.asarray(values, dtype=np.float64)


def _skew(x: FloatArray) -> float:
    centred = x - x.mean()
    return float((centred**3).mean() / (centred.std() ** 3 + 1e-12))


def _kurtosis(x: FloatArray) -> float:
    centred = x - x.mean()
    return float((centred**4).mean() / (centred.std() ** 4 + 1e-12))


def unmirrored(view: RenderedView) -> FloatArray:
    """The pixels with the chest wall on the left, the half of the detector that can hold a breast."""
    pixels = view.pixels[:, ::-1] if view.view.laterality is Laterality.RIGHT else view.pixels
    return np.ascontiguousarray(pixels[:, : round(143.36 / view.pixel_mm)])


def exam_samples(number: int, exam: PhantomExam, probe: Probe | None) -> list[Sample]:
    """The four views of an exam."""
    rendered = [render_view(exam, view, PIXEL_MM) for view in STANDARD_VIEWS]
    pixels = [unmirrored(view) for view in rendered]
    step = PIXEL_MM * pixels[0].shape[0] / PROBE_ROWS
    columns = round(pixels[0].shape[1] * PIXEL_MM / step)
    pictures = [resample(picture, PIXEL_MM, PROBE_ROWS, columns, step) for picture in pixels]
    features = probe(pictures) if probe else np.zeros((len(pictures), 0))
    shown = [frozenset(t.finding for t in view.truth if t.finding is not None) for view in rendered]
    return [Sample(image_statistics(pixels[i]), features[i], shown[i], number) for i in range(len(rendered))]


def imagenet_probe() -> Probe:
    """The frozen ImageNet trunk (lite0): mean and maximum of its last maps."""
    import torch

    from training.efficientnet import EfficientNet, load_imagenet

    trunk = EfficientNet("lite0", channels=1, padding="static").eval()
    load_imagenet(trunk)

    def features(pictures: Sequence[FloatArray]) -> Values:
        with torch.inference_mode():
            maps = trunk((torch.from_numpy(np.stack(pictures))[:, None] * 255.0 - 127.0) / 128.0)
            pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        return np.asarray(pooled.double().numpy())

    return features


def principal_components(x: Values, count: int) -> Values:
    """The first components of standardised columns; labels are not used."""
    centred = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(left[:, :count] * lengths[:count])


def measure(count: int, first_seed: int, probe: Probe | None) -> dict[str, dict[str, float]]:
    """AUC by finding of the statistics and, where given, of the frozen trunk, over `count` exams."""
    rows = [row for i in range(count) for row in exam_samples(i, make_exam(first_seed + i), probe)]
    exam = np.array([row.exam for row in rows])
    inputs = {"statistics": (np.stack([row.statistics for row in rows]), 10.0)}
    if probe:
        inputs["imagenet probe"] = (principal_components(np.stack([row.features for row in rows]), 256), 100.0)
    table: dict[str, dict[str, float]] = {}
    for finding in FindingKind:
        positive = np.array([finding in row.findings for row in rows])
        table[finding.value] = {
            name: cross_validated_auc(x, positive, exam, penalty) for name, (x, penalty) in inputs.items()
        }
        table[finding.value]["views with"] = float(positive.sum())
    return table


def measure_pairs(count: int, first_seed: int) -> dict[str, float]:
    """AUC of the statistics of one view alone (RCC) on the pairs that need two views."""
    found = {}
    for name, make in {
        "mass against shadow": make_mass_pair,
        "asymmetry against symmetric": make_asymmetry_pair,
    }.items():
        rows = []
        for i in range(count):
            rows += [image_statistics(unmirrored(render_view(e, RCC, PIXEL_MM))) for e in make(first_seed + i)]
        positive = np.tile(np.array([True, False]), count)
        found[name] = cross_validated_auc(np.stack(rows), positive, np.repeat(np.arange(count), 2), 30.0)
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exams", type=int, default=300)
    parser.add_argument("--seed", type=int, default=VALIDATION_SEED + 500_000)
    parser.add_argument("--no-probe", action="store_true")
    parser.add_argument("--pairs", type=int, default=0)
    chosen = parser.parse_args()
    probe = None if chosen.no_probe else imagenet_probe()
    print(f"generator {GENERATOR_VERSION}, {chosen.exams} exams from seed {chosen.seed}")
    for finding, row in measure(chosen.exams, chosen.seed, probe).items():
        print(finding, {name: round(value, 3) for name, value in row.items()})
    if chosen.pairs:
        print({name: round(value, 3) for name, value in measure_pairs(chosen.pairs, chosen.seed).items()})


if __name__ == "__main__":
    main()
