"""Identity of weights: SHA-256 over the float32 initialisers of a graph, whatever type they are stored in."""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def weights_hash(initialisers: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """SHA-256, in hexadecimal, over the floating-point initialisers sorted by name: name, dtype, shape, bytes.

    Values stored as float16 count as the float32 that the graph computes with. Integers are no weights.
    """
    digest = hashlib.sha256()
    for name in sorted(initialisers):
        values = np.asarray(initialisers[name])
        if not np.issubdtype(values.dtype, np.floating):
            continue
        single = np.ascontiguousarray(values, dtype="<f4")
        digest.update(f"{name}\0float32\0{','.join(map(str, single.shape))}\0".encode())
        digest.update(single.tobytes())
    return digest.hexdigest()
