"""The tensors of a TorchScript archive (OpenAI gives CLIP as one), read without running anything that stands in it.

The archive is a zip: data.pkl names objects and points to storages under data/, code/ has the program. Here data.pkl
is unpickled with a fixed list of names: objects of the program become inert, tensors are made of the storages' bytes,
any other name is refused; code/ is never opened.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.mammo_clip.released import CheckpointError

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")


def is_jit_archive(path: Path) -> bool:
    """A zip with a program and its objects, as torch.jit.save writes."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any("/code/" in name for name in names) and any(name.endswith("/data.pkl") for name in names)


def read_jit_archive(path: Path) -> dict[str, Tensor]:
    """Names of parameters and buffers, as its state dict has them, to tensors. Raises CheckpointError."""
    try:
        with zipfile.ZipFile(path) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(listing) as objects:
                top = _Objects(objects, archive, listing.removesuffix("data.pkl")).load()
            return dict(_tensors(top, ""))
    except _RefusedError as error:
        raise CheckpointError(f"{path}: refused: its objects want {error}, which no archive of CLIP wants") from error
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path}: cannot be read as a TorchScript archive: {type(error).__name__}: {error}. Is it whole? Fetch it "
            "again"
        ) from error


class _RefusedError(Exception):
    """A name that is not on the list."""


_UNREADABLE = (
    *(OSError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RuntimeError, NotImplementedError),
    *(ValueError, LookupError, AttributeError, TypeError, OverflowError, RecursionError),
)


class _ScriptObject:
    """In place of an object of the program: keeps its attributes, does nothing."""

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """A view of a storage; torch refuses one that leaves it."""
    return torch.as_strided(storage, size, stride, offset).clone()


def _same(value: object, *_: object) -> object:
    return value


class _Objects(pickle.Unpickler):
    """Knows tensors, storages, lists, and the program's own objects."""

    def __init__(self, objects: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(objects)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for; anything unknown ends the reading."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptObject
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name in (*_LISTS, "restore_type_tag"):
            return _same
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage as a flat tensor: ("storage", type, its file's name, device, elements)."""
        kind, dtype, key, _, elements = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _RefusedError(f"a stored {kind}")
        if key not in self._storages:
            content = self._archive.read(f"{self._folder}data/{key}")
            flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
            if len(flat) < elements:
                raise ValueError(f"storage {key} has {len(flat)} elements of {elements}")
            self._storages[key] = flat
        return self._storages[key]


def _tensors(part: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Depth first, under the names that a state dict gives them."""
    if not isinstance(part, _ScriptObject):
        return
    for name, value in part.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + str(name), value
        else:
            yield from _tensors(value, f"{prefix}{name}.")
