"""Writing and reading blobs: the store fsspec against the system's own calls, and against s3fs.

Both keep the same promise: on disk the content is synced under another name, takes its own, and the
folder is synced; in S3 an upload appears whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .comparison import Growth, Row, at_least, at_most
from .settings import Settings

MIB = 1 << 20
SMALL = b"x" * 1000
"""A small blob, such as the record of a run."""


def rows(settings: Settings) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="crucible-blobs-") as folder:
        yield from small_rows(settings, Path(folder))
        yield from large_rows(settings, Path(folder))
    yield memory_row(settings)
    if find_spec("s3fs") and find_spec("moto"):
        with s3_server() as endpoint:
            yield from s3_rows(settings, endpoint)


def small_rows(settings: Settings, folder: Path) -> Iterator[Row]:
    count = 100 if settings.small else 2000  # a round; a sync takes 3 ms here
    names = [f"run-{number % 10}/{number}" for number in range(count)]

    def write_ours() -> int:
        with opened(folder / "ours") as kitchen:
            for name in names:
                kitchen.blob_store.write(name, SMALL)
        return count

    def read_ours() -> int:
        with opened(folder / "ours") as kitchen:
            return sum(len(kitchen.blob_store.read(name)) for name in names)

    def write_theirs() -> int:
        for number in range(10):
            (folder / "theirs" / f"run-{number}").mkdir(parents=True, exist_ok=True)
        for name in names:
            write_by_hand(folder / "theirs" / name, [SMALL])
        return count

    def read_theirs() -> int:
        return sum(len(read_by_hand(folder / "theirs" / name)) for name in names)

    for what, against, ours, theirs in (
        ("write of", "open, fsync, replace, folder's fsync", write_ours, write_theirs),
        ("read of", "open and read", read_ours, read_theirs),
    ):
        found = settings.contest().run(ours=ours, theirs=theirs)
        assert found.results["ours"] == found.results["theirs"], "the contents differ"
        yield found.row(
            "ours",
            "theirs",
            what=f"{what} {count:,} blobs of 1,000 bytes",
            against=against,
            goal=at_least(0.95),
            work=count,
            unit="blobs/s",
        )


def large_rows(settings: Settings, folder: Path) -> Iterator[Row]:
    size = 16 if settings.small else 1024

    def write_ours() -> int:
        with opened(folder) as kitchen:
            kitchen.blob_store.write("large", pieces(size))
        return size

    def stream_ours() -> int:
        with opened(folder) as kitchen:
            return sum(map(len, kitchen.blob_store.stream("large"))) // MIB

    def write_theirs() -> int:
        write_by_hand(folder / "large-by-hand", pieces(size))
        return size

    def stream_theirs() -> int:
        total = 0
        with (folder / "large-by-hand").open("rb") as file:
            while chunk := file.read(MIB):
                total += len(chunk)
        return total // MIB

    for what, against, ours, theirs in (
        ("write of", "open, fsync, replace, folder's fsync", write_ours, write_theirs),
        ("stream of", "open, read by 1 MiB", stream_ours, stream_theirs),
    ):
        found = settings.contest().run(ours=ours, theirs=theirs)
        assert found.results == {"ours": size, "theirs": size}, "the contents differ"
        yield found.row(
            "ours",
            "theirs",
            what=f"{what} {size:,} MiB",
            against=against,
            goal=at_least(0.95),
            work=size,
            unit="MiB/s",
        )


def memory_row(settings: Settings, url: str = "", **options: Any) -> Row:
    """Compare how much a process grows for a large blob and for a small one, written and read."""
    size = 16 if settings.small else 512
    with tempfile.TemporaryDirectory(prefix="crucible-blobs-") as folder:
        grown = growth_of_memory(size, {"url": url or folder, **options})
    where = "in S3" if url else "on disk"
    return Row(
        f"memory: {size} MiB {where}, written in pieces and streamed",
        "a growth of 32 MiB",
        at_most(1.0),
        grown / 32,
        grown,
        32,
        "MiB",
    )


def growth_of_memory(size: int, options: dict[str, Any]) -> float:
    """Return by how many MiB a blob of `size` MiB makes a new process grow."""
    # Not `ru_maxrss`, which a child inherits from the process that started it.
    program = """
import json, pathlib, re, sys
import crucible_adapter_fsspec.blob_store as blobs
size, options = int(sys.argv[1]), blobs.Options(**json.loads(sys.argv[2]))
def both(count):
    blobs.write(options, "memory", (bytes(1 << 20) for _ in range(count)))
    assert sum(map(len, blobs.stream(options, "memory", 1 << 20))) == count << 20
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
both(1)
before = peak()
both(size)
print(peak() - before)
"""
    import json

    command = [sys.executable, "-W", "ignore", "-c", program, str(size), json.dumps(options)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def growth(settings: Settings) -> Iterator[Growth]:
    counts = [25, 50, 100, 200] if settings.small else [500, 1000, 2000, 4000]
    sizes = [1, 2, 4, 8] if settings.small else [64, 128, 256, 512]
    curves: dict[str, list[float]] = {"write": [], "read": [], "list": []}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as kitchen:
            store = kitchen.blob_store
            names = [f"run/{number}" for number in range(count)]
            curves["write"].append(seconds(lambda: [store.write(n, SMALL) for n in names]))  # noqa: B023
            curves["read"].append(seconds(lambda: [store.read(n) for n in names]))  # noqa: B023
            curves["list"].append(seconds(store.list))
    yield Growth("blobs of 1,000 bytes in one folder", "blobs", "s", counts, dict(curves))
    curves = {"write": [], "stream": []}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as kitchen:
            store = kitchen.blob_store
            curves["write"].append(seconds(lambda: store.write("blob", pieces(size))))  # noqa: B023
            curves["stream"].append(seconds(lambda: sum(map(len, store.stream("blob")))))  # noqa: B023
    yield Growth("one blob, in pieces of 1 MiB", "MiB", "s", sizes, dict(curves))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# --- S3 ---


def s3_server() -> Any:
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    import moto_server

    return moto_server.started()


def s3_rows(settings: Settings, endpoint: str) -> Iterator[Row]:
    import s3fs

    access = {"key": "key", "secret": "hush", "endpoint_url": endpoint}
    bucket = uuid.uuid4().hex
    fs = s3fs.S3FileSystem(**access, skip_instance_cache=True, use_listings_cache=False)
    fs.mkdir(bucket)
    size, count = (16, 20) if settings.small else (256, 500)
    names = [f"small-{number}" for number in range(count)]
    whole = bytes(size * MIB)
    with opened(f"s3://{bucket}/ours", storage_options=access) as kitchen:
        store = kitchen.blob_store
        at = f"{bucket}/theirs"

        def put() -> int:
            with fs.open(f"{at}/pieces", "wb") as file:
                for piece in pieces(size):
                    file.write(piece)
            return size * MIB

        def get() -> int:
            with fs.open(f"{at}/large", "rb") as file:
                return sum(map(len, iter(lambda: file.read(MIB), b"")))

        ways: list[tuple[str, str, float, str, Callable[[], int], Callable[[], int]]] = [
            (
                f"write of {size} MiB of bytes",
                "pipe_file",
                size,
                "MiB/s",
                lambda: len(whole) + bool(store.write("large", whole)),
                lambda: len(whole) + 0 * len(fs.pipe_file(f"{at}/large", whole) or ()),
            ),
            (
                f"write of {size} MiB in pieces",
                "open and write",
                size,
                "MiB/s",
                lambda: size * MIB + bool(store.write("pieces", pieces(size))),
                put,
            ),
            (
                f"read of {size} MiB",
                "cat_file",
                size,
                "MiB/s",
                lambda: len(store.read("large")),
                lambda: len(fs.cat_file(f"{at}/large")),
            ),
            (
                f"stream of {size} MiB",
                "open and read",
                size,
                "MiB/s",
                lambda: sum(map(len, store.stream("large"))),
                get,
            ),
            (
                f"write of {count} blobs of 1,000 bytes",
                "pipe_file",
                count,
                "blobs/s",
                lambda: len([store.write(name, SMALL) for name in names]),
                lambda: len([fs.pipe_file(f"{at}/{name}", SMALL) for name in names]),
            ),
            (
                f"read of {count} blobs of 1,000 bytes",
                "cat_file",
                count,
                "blobs/s",
                lambda: sum(len(store.read(name)) for name in names),
                lambda: sum(len(fs.cat_file(f"{at}/{name}")) for name in names),
            ),
        ]
        for what, against, work, unit, ours, theirs in ways:
            # The server is a process of its own, whose CPU time would not count.
            found = settings.contest(clock="wall").run(ours=ours, theirs=theirs)
            assert found.results["ours"] == found.results["theirs"], f"{what}: not the same"
            yield found.row(
                "ours",
                "theirs",
                what=f"S3: {what}",
                against=f"s3fs {against}",
                goal=at_least(0.95),
                work=work,
                unit=unit,
            )
        yield memory_row(settings, f"s3://{bucket}/memory", storage_options=access)


# --- ways ---


def opened(url: Path | str, **options: Any) -> Any:
    from crucible_kitchen import Kitchen

    return Kitchen(adapters={"blob_store": {"use": "fsspec", "url": str(url), **options}})


def pieces(mebibytes: int) -> Iterator[bytes]:
    piece = b"p" * MIB
    for _ in range(mebibytes):
        yield piece


def write_by_hand(path: Path, data: Any) -> None:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with open(temporary, "wb") as file:
        for piece in data:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def read_by_hand(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()
