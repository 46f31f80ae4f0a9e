"""Files of safetensors, written in one pass, a chunk at a time.

The library's own writer wants all tensors at once, and unchanged until it has ended; a digest then
takes another pass over the file. The bytes are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from .snapshots import Snapshot

_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the format calls each type, in the order in which it places them: the widest first, so that
all are aligned."""


def write(path: Path, snapshot: Snapshot, group: str) -> str:
    """Write a group of tensors to a new file; return its SHA-256, in hexadecimal.

    Raises:
        OSError: the file cannot be written, or not all of it.
    """
    kinds = snapshot.kinds[group]
    places = {dtype: place for place, dtype in enumerate(_NAMES)}
    names = sorted(kinds, key=lambda name: (places[kinds[name][0]], name))
    header, end = {}, 0
    for name in names:
        dtype, shape = kinds[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb", buffering=0) as file:
        for prefix in (len(text).to_bytes(8, "little"), text):
            _append(file, memoryview(prefix), digest)
        for name in names:
            for chunk in snapshot.read(group, name):
                _append(file, chunk, digest)
    return digest.hexdigest()


def _append(file: FileIO, data: memoryview, digest: Any) -> None:
    digest.update(data)
    while data:  # a full disk takes a part of it first
        data = data[file.write(data) :]
