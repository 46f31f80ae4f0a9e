"""NumPy's arrays as JSON, and arrays again: the same bits, type and shape, in native byte order."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

SHORT = 64
"""Numbers of an array that are written as numbers; a longer one is base64, or in arguments a
digest."""
_KINDS = (np.ndarray, np.memmap)
"""Not others: a masked array, say, would lose its mask."""


def plain_array(array: np.ndarray[Any, Any], briefly: bool) -> dict[str, Any] | None:
    """Return an array as JSON; None if a cassette cannot hold it.

    Args:
        array: of any shape.
        briefly: whether a long one is a digest.
    """
    dtype = array.dtype
    # What another package adds, as ml_dtypes does bfloat16, has kind V or is unknown by its name. A
    # `longdouble` differs by machine, and has bytes that mean nothing.
    if (
        type(array) not in _KINDS
        or dtype.kind not in "biufc"
        or dtype.itemsize > _WIDEST[dtype.kind]
    ):
        return None
    about: dict[str, Any] = {"dtype": dtype.name, "shape": [*array.shape]}
    whole = dtype.kind in "iub" or bool(np.isfinite(array).all())
    if array.size <= SHORT and whole and dtype.kind != "c":
        return {**about, "numbers": array.ravel().tolist()}
    content = np.ascontiguousarray(array.astype(dtype.newbyteorder("<"))).tobytes()
    if briefly:
        return {**about, "sha256": hashlib.sha256(content).hexdigest()}
    return {**about, "base64": base64.b64encode(content).decode()}


_WIDEST = {"b": 1, "i": 8, "u": 8, "f": 8, "c": 16}
"""Bytes of a number, by kind."""


def array_of(about: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return the array again.

    Raises:
        ValueError: it is none.
    """
    dtype = np.dtype(about["dtype"])
    if dtype.kind not in _WIDEST:
        raise ValueError(f"an array of {dtype}")
    if "numbers" in about:
        return np.array(about["numbers"], dtype).reshape(about["shape"])
    content = base64.b64decode(about["base64"])
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(about["shape"])
