"""The sample that a served model answers before it is ready: `warmup/sample.npz` in the model's folder.

It holds one value of each input without the batch axis; `views` may be uint8 in place of float, 255 for 1. Triton
itself reads a file of raw numbers for each input; `write_files` makes them for the targets that it warms up.
"""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.errors import ContractError
from node.inference.tensors import Signature

FOLDER = "warmup"
SAMPLE = "sample.npz"


def write_sample(model_folder: Path, inputs: dict[str, NDArray[np.generic]]) -> Path:
    """Write the sample, compressed; returns its file."""
    file = model_folder / FOLDER / SAMPLE
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, allow_pickle=False, **inputs)
    return file


def read_sample(model_folder: Path, inputs: Signature) -> dict[str, NDArray[np.generic]] | None:
    """The sample as the model takes it, without the batch axis. None: there is none. Raises ContractError."""
    file = model_folder / FOLDER / SAMPLE
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            sample = {name: stored[name] for name in inputs}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ContractError(f"model: {FOLDER}/{SAMPLE} is no sample of {', '.join(inputs)}; export it again") from error
    return {name: _as_input(name, sample[name], *wanted) for name, wanted in inputs.items()}


def _as_input(name: str, value: NDArray[np.generic], element_type: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    wanted = shape[1:]
    if value.ndim != len(wanted) or any(b not in (-1, a) for a, b in zip(value.shape, wanted, strict=True)):
        raise ContractError(f"model: {FOLDER}/{SAMPLE}: {name} has shape {value.shape}; the contract says {wanted}")
    if value.dtype == np.uint8 and element_type != "uint8":
        value = value.astype(np.float32) / np.float32(255)
    return value.astype(element_type)


def write_files(model_folder: Path, sample: dict[str, NDArray[np.generic]]) -> None:
    """One file of raw numbers for each input, where Triton looks for `input_data_file`."""
    folder = model_folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in sample.items():
        (folder / name).write_bytes(np.ascontiguousarray(value).tobytes())
