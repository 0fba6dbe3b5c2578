"""Phantom mammograms: exams made from a seed, with truth masks and report sentences. No patient stands behind them."""

from training.phantoms.dicom import view_dataset, write_dicom
from training.phantoms.exam import (
    CALIBRATION_SEED,
    GENERATOR_VERSION,
    TEST_SEED,
    TRAIN_SEED,
    VALIDATION_SEED,
    PhantomExam,
    make_exam,
)
from training.phantoms.render import RenderedView, Truth, render_view

__all__ = [
    "CALIBRATION_SEED",
    "GENERATOR_VERSION",
    "TEST_SEED",
    "TRAIN_SEED",
    "VALIDATION_SEED",
    "PhantomExam",
    "RenderedView",
    "Truth",
    "make_exam",
    "render_view",
    "view_dataset",
    "write_dicom",
]
