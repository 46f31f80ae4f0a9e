"""What the files of earlier starts of an offline run hold.

Each start of a run writes a file `offline-run-<time>-<id>/run-<id>.wandb`: after a header of 7
bytes, blocks of 32 KiB of records, as in LevelDB's log: a checksum of 4 bytes, a length of 2, a
type of 1 (whole, first, middle, last), and then the data, a message of Protocol Buffers.
"""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

_HEADER = 7
_BLOCK = 32 * 1024
_WHOLE, _LAST = 1, 4
_LONGEST_WAIT = 10.0


def files(folder: Path, wandb_id: str) -> list[Path]:
    """Return the files of a run, that of its first start first."""
    return sorted(folder.glob(f"wandb/offline-run-*-{wandb_id}/run-{wandb_id}.wandb"))


def records(file: Path) -> Iterator[Record]:
    """Yield the records of a file, up to where a process that was killed left it."""
    data = file.read_bytes()
    at, parts = _HEADER, b""
    while at + _HEADER <= len(data):
        if (left := _BLOCK - at % _BLOCK) < _HEADER:  # too small for another record
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        at += _HEADER
        if kind == 0 or at + length > len(data):
            return
        parts += data[at : at + length]
        at += length
        if kind in (_WHOLE, _LAST):
            try:
                yield Record.FromString(parts)
            except Exception:  # of Protocol Buffers, which are W&B's own dependency
                return
            parts = b""


def await_name(folder: Path, wandb_id: str) -> None:
    """Wait for the next second where an earlier start of a run was in this one: W&B names the
    folder of a start by the second, and the later would replace the file of the earlier.
    """
    now = datetime.now()
    if any(folder.glob(f"wandb/*run-{now:%Y%m%d_%H%M%S}-{wandb_id}")):
        time.sleep(1 - now.microsecond / 1e6)


def last_values(folder: Path, wandb_id: str, names: Collection[str]) -> dict[str, int]:
    """Return the largest value of some metrics in all files of a run; of whole numbers."""
    found: dict[str, int] = {}
    for file in files(folder, wandb_id):
        for record in records(file):
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                if name in names:
                    with contextlib.suppress(ValueError, TypeError):
                        found[name] = max(found.get(name, -1), int(json.loads(item.value_json)))
    return found


def await_end(folder: Path, wandb_id: str) -> None:
    """Return when the last file of a run is whole, or after 10 seconds.

    W&B's process writes the end of the file a moment after a run was finished, and a run
    that is continued at once would read too little.
    """
    until = time.monotonic() + _LONGEST_WAIT
    while time.monotonic() < until:
        last = files(folder, wandb_id)[-1:]
        if any(one.WhichOneof("record_type") == "exit" for file in last for one in records(file)):
            return
        time.sleep(0.02)
