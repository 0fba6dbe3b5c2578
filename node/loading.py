"""The images of an exam: read from their files, prepared for the model, and which of them could not be assessed."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from node.errors import PixelError
from node.exam import Exam, displayed_twin
from node.instance import Instance
from node.mammography.anatomy import spacing_mm
from node.mammography.pixels import PreparedView, Preset, prepare
from node.mammography.quality import QualityFinding, measure
from node.mammography.views import STANDARD_VIEWS, Laterality, View
from node.results.orientation import patient_orientation
from node.results.reading import UnreadView

DECODERS = 2
"""Views prepared at once: the decoders work outside Python's lock, and each view takes about 200 MB meanwhile."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedView:
    """One view that the model sees. Marks stand on `shown`, whose data set without pixels is `source`.

    `read_from` is the image whose pixels were prepared, where that is another one.
    """

    view: View
    shown: Instance
    source: Dataset
    prepared: PreparedView
    quality: tuple[QualityFinding, ...]
    read_from: Instance | None = None
    why_not_displayed: str = ""
    """Why the marks of a For Processing image do not stand on its For Presentation image, in words."""

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader should know of the image."""
        return (*self.prepared.flags, self.why_not_displayed) if self.why_not_displayed else self.prepared.flags

    @property
    def orientation(self) -> tuple[str, ...]:
        """Patient Orientation that results write."""
        return patient_orientation(self.source, self.view, self.prepared.chest_wall)

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(row, column) spacing in the breast, None where unknown."""
        return spacing_mm(self.source)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What was there of an exam: the views for the model, and those that it does not get, each with its reason.

    `sources` has the data sets, without pixels, of both.
    """

    loaded: tuple[LoadedView, ...]
    unread: tuple[UnreadView, ...]
    sources: dict[View, Dataset]
    not_assessed: tuple[str, ...] = ()
    """In words: images of which not even the header can be read."""

    def tensors(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """`views` (4, 1, H, W) and `present` (4,). At least one view is loaded."""
        shape = self.loaded[0].prepared.pixels.shape
        views = np.zeros((len(STANDARD_VIEWS), 1, *shape), np.float32)
        present = np.zeros(len(STANDARD_VIEWS), np.bool_)
        for image in self.loaded:
            index = STANDARD_VIEWS.index(image.view)
            views[index, 0], present[index] = image.prepared.pixels, True
        return views, present


def read_headers(exam: Exam) -> dict[View, Dataset]:
    """The data sets of the chosen images without their pixels; what cannot be parsed is left out."""
    sources = {}
    for view, instance in exam.chosen:
        try:
            sources[view] = _read_file(instance, pixels=False)
        except PixelError:
            continue
    return sources


def read_images(exam: Exam) -> dict[View, Dataset | PixelError]:
    """The data sets of the chosen images with their pixels, or why a file cannot be read."""
    return {view: _tried(instance) for view, instance in exam.chosen}


def prepare_images(exam: Exam, files: Mapping[View, Dataset | PixelError], preset: Preset, tolerant: bool) -> Images:
    """Model inputs; pixel data leaves the data sets as soon as it was used.

    A view that is refused for its quality is not loaded. One whose pixels cannot be read raises PixelError, where
    `tolerant` it is not loaded either.
    """
    instances = dict(exam.chosen)
    with ThreadPoolExecutor(DECODERS) as decoders:
        tried = list(decoders.map(lambda view: _prepared(view, files[view], preset), files))
    images = [
        _judged(view, instances[view], file, outcome)
        for (view, file), outcome in zip(files.items(), tried, strict=True)
    ]
    images = [_displayed(exam, image) if isinstance(image, LoadedView) else image for image in images]
    failed = [(view, error) for view, error in zip(files, tried, strict=True) if isinstance(error, PixelError)]
    if failed and (not tolerant or len(failed) == len(tried)):
        view, error = failed[0]
        raise PixelError(f"{view}: {error}") from error
    return Images(
        loaded=tuple(image for image in images if isinstance(image, LoadedView)),
        unread=tuple(image for image in images if isinstance(image, UnreadView)),
        sources={view: file for view, file in files.items() if isinstance(file, Dataset)}
        | {image.view: image.source for image in images if isinstance(image, LoadedView)},
        not_assessed=tuple(f"{view}: {file}" for view, file in files.items() if isinstance(file, PixelError)),
    )


def _judged(
    view: View, shown: Instance, file: Dataset | PixelError, outcome: PreparedView | PixelError
) -> LoadedView | UnreadView | None:
    """A view for the model, or why it gets none; None where there is not even a header."""
    if isinstance(file, PixelError):
        return None
    if isinstance(outcome, PixelError):
        return unread_view(view, shown, file, str(outcome))
    quality = measure(file, view, outcome)
    refused = [f"{finding.reason.value}: {finding.words}" for finding in quality if finding.refused]
    if refused:
        return unread_view(view, shown, file, "; ".join(refused), outcome.chest_wall, quality)
    return LoadedView(view, shown, file, outcome, quality)


def _displayed(exam: Exam, image: LoadedView) -> LoadedView:
    """Marks of a For Processing image stand on its For Presentation twin, where there is one that can be read."""
    twin, why_not = displayed_twin(exam, image.shown)
    if twin is None:
        return replace(image, why_not_displayed=why_not)
    try:
        source = _read_file(twin, pixels=False)
    except PixelError as error:
        return replace(image, why_not_displayed=f"marks stand on the For Processing image: {error}")
    return replace(image, shown=twin, source=source, read_from=image.shown)


def unread_view(
    view: View,
    instance: Instance,
    source: Dataset,
    reason: str,
    chest_wall: Laterality | None = None,
    quality: tuple[QualityFinding, ...] = (),
) -> UnreadView:
    """An image that was not assessed, by its header; `chest_wall` where its pixels told it."""
    return UnreadView(
        view=view,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        rows=instance.rows,
        columns=instance.columns,
        orientation=patient_orientation(source, view, chest_wall),
        reason=reason,
        quality=quality,
    )


def _tried(instance: Instance) -> Dataset | PixelError:
    try:
        return _read_file(instance)
    except PixelError as error:
        return error


def _read_file(instance: Instance, *, pixels: bool = True) -> Dataset:
    try:
        return dcmread(instance.path, stop_before_pixels=not pixels)
    except (InvalidDicomError, EOFError, OSError) as error:
        raise PixelError(f"the file of {instance.sop_instance_uid} cannot be read: {type(error).__name__}") from error


def _prepared(view: View, file: Dataset | PixelError, preset: Preset) -> PreparedView | PixelError:
    if isinstance(file, PixelError):
        return file
    try:
        return prepare(file, view.laterality, preset)
    except PixelError as error:
        return error
    finally:
        if "PixelData" in file:
            del file.PixelData
