"""What becomes of a hub that lies about a data set, or has one that does harm: no file outside of
the caches, none in them that is not what its name says, a bounded memory, and an error that says
why.

The hub is a real server on this machine.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crucible_adapter_hf_datasets.dataset_store as hf_datasets
import pytest
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    InvalidInput,
    Kitchen,
    RateLimited,
    Unavailable,
    Unsupported,
)
from loopback_hub import (
    Altered,
    Answer,
    Endless,
    EndlessHead,
    Fault,
    LoopbackHub,
    WrongBytes,
    environment,
    git_id,
    redirect,
)

pytestmark = pytest.mark.slow

REPO = "org/rows"
ROWS = b'{"n": 1}\n{"n": 2}\n'
GOOD = {"README.md": b"# Rows\n", "train.jsonl": ROWS}
LIMITS = {
    "timeout": 2,
    "answer_timeout": 3,
    "stall_timeout": 1,
    "max_answer_bytes": 400_000,
    "max_row_bytes": 100_000,
}
OUTSIDE = "{outside}"
ELSEWHERE = "{elsewhere}"


@dataclass(frozen=True)
class Lie:
    """What the hub has and says, and what has to come of it.

    Args:
        error: the class of the error; None if the right rows have to come nevertheless.
    """

    error: type[AdapterError] | None
    files: Mapping[str, bytes] = field(default_factory=lambda: GOOD)
    fault: Fault | None = None
    path: str = ""
    method: str = ""
    skip: int = 0
    streaming: bool = False


def card(text: str) -> dict[str, bytes]:
    return {"README.md": f"---\n{text}\n---\n".encode(), "train.jsonl": ROWS}


def names(pattern: str) -> Lie:
    """A README.md that names files by a pattern."""
    return Lie(AdapterError, card(f"configs:\n- config_name: default\n  data_files: {pattern}"))


def said(fault: Fault, path: str, error: type[AdapterError] | None, method: str = "") -> Lie:
    return Lie(error, fault=fault, path=path, method=method)


def answered(body: object, path: str = "/revision/") -> Lie:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return said(Answer(200, body=text), path, Unavailable)


def listed(**changes: object) -> Lie:
    entry = {"type": "file", "path": "train.jsonl", "size": len(ROWS), "oid": git_id(ROWS)}
    return answered([{**entry, **changes}], "/tree/")


def headed(headers: Mapping[str, str | None], error: type[AdapterError] | None = None) -> Lie:
    return said(Altered(headers), "/resolve/", error)


def holds(name: str, content: bytes, streaming: bool = False) -> Lie:
    """A file that is what it is said to be, and does harm."""
    return Lie(InvalidInput, {name: content}, streaming=streaming)


BOMB = b'{"text": "' + b"x" * (20 << 20) + b'"}\n'
SHORT = (b'{"text": "' + b"x" * 9000 + b'"}\n') * 2500
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)
MERGES = "a: &a {k: v}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join(['*' + chr(97 + i)] * 9)}]}}\n"
    for i in range(12)
)

LIES: dict[str, Lie] = {
    # --- what becomes of names and hashes ---
    "an ETag that is an absolute path": headed({"ETag": f'"{OUTSIDE}/evil.pth"'}),
    "an ETag of another repository": headed({"ETag": '"../../models--org--other/refs/main"'}),
    "an ETag of other content": headed({"ETag": f'"{"0" * 40}"'}),
    "an empty ETag": headed({"ETag": '""'}),
    "a linked ETag that goes up": headed({"X-Linked-Etag": '"../../../evil"'}),
    "a commit of a file that goes up": headed({"X-Repo-Commit": "../../x"}, Unavailable),
    "a commit of no file": said(
        Answer(404, "EntryNotFound", {"X-Repo-Commit": f"{OUTSIDE}/x"}), "/resolve/", AdapterError
    ),
    "a commit of no file of another revision": said(
        Answer(404, "EntryNotFound", {"X-Repo-Commit": "b" * 40}), ".huggingface.yaml", Unavailable
    ),
    "a Xet token of another host": headed(
        {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{ELSEWHERE}/token"}, Unavailable
    ),
    "a file that is not listed": said(
        Answer(200, headers={"ETag": f'"{"a" * 40}"', "X-Repo-Commit": "c" * 40}, body=b"x: 1"),
        ".huggingface.yaml",
        Unavailable,
    ),
    "other content": said(WrongBytes(), "train.jsonl", Unavailable, "GET"),
    "another README.md": said(WrongBytes(), "README.md", Unavailable, "GET"),
    "a page of HTML for a file": said(
        Answer(200, body=b"<html>"), "train.jsonl", Unavailable, "GET"
    ),
    "content without end": said(Endless(b"x" * 65536), "train.jsonl", Unavailable, "GET"),
    "content byte by byte": said(Endless(b"x", pause=0.05), "README.md", AdapterTimeout, "GET"),
    "a name that is an absolute path": listed(path=f"{OUTSIDE}/train.jsonl"),
    "a name that goes up": listed(path="../../../train.jsonl"),
    "a name with NUL": listed(path="a\0.jsonl"),
    "a name that is a number": listed(path=7),
    "a hash that is a path": listed(oid="../../x"),
    "a size that is a text": listed(size="18"),
    "a negative size": listed(size=-1),
    "a size of 400 digits": listed(size=10**400),
    # --- answers ---
    "a commit that goes up": answered({"id": REPO, "sha": "../../x"}),
    "a commit that is a list": answered({"id": REPO, "sha": ["a" * 40]}),
    "a list in place of an object": answered([]),
    "null": answered(None),
    "JSON of 90,000 levels": answered(b"[" * 90_000),
    "an integer of 5,000 digits": answered(b'{"sha": ' + b"9" * 5000 + b"}"),
    "a page of HTML": answered(b"<html>"),
    "an answer without end": said(Endless(b" " * 65536), "/api/", Unavailable),
    "an answer letter by letter": said(Endless(b" ", pause=0.05), "/api/", AdapterTimeout),
    "a head letter by letter": said(EndlessHead(0.05), "/api/", AdapterTimeout),
    "a head that goes on while the library asks": said(
        EndlessHead(0.05), ".huggingface.yaml", AdapterError
    ),
    # The first of these questions is the adapter's own.
    "a listing that is null while the library asks": Lie(
        AdapterError, fault=Answer(200, body=b"null"), path="/tree/", skip=1
    ),
    "a listing without end while the library asks": Lie(
        Unavailable, fault=Endless(b" " * 65536), path="/tree/", skip=1
    ),
    "a listing letter by letter while the library asks": Lie(
        AdapterTimeout, fault=Endless(b" ", pause=0.05), path="/tree/", skip=1
    ),
    "another host while the library asks": Lie(
        Unavailable,
        fault=Answer(
            200, headers={"Link": f'<{ELSEWHERE}/api/datasets/x>; rel="next"'}, body=b"[]"
        ),
        path="/tree/",
        skip=1,
    ),
    "to wait for a month while the library asks": Lie(
        Unavailable,
        fault=Answer(503, headers={"Retry-After": "2678400"}),
        path="/tree/",
        skip=1,
    ),
    "a window of 5,000 digits while the library asks": Lie(
        RateLimited,
        fault=Answer(429, headers={"RateLimit": f'"api";r=0;t={"9" * 5000}'}),
        path="/tree/",
        skip=1,
    ),
    "to wait for ever for what it does not list": said(
        Answer(503, headers={"Retry-After": "9" * 400}), ".huggingface.yaml", None
    ),
    "a question sent to another host": said(
        Answer(302, headers={"Location": f"{ELSEWHERE}/api"}), "/api/", Unavailable
    ),
    "a question sent to a file": said(
        Answer(302, headers={"Location": "file:///etc/passwd"}), "/api/", Unavailable
    ),
    "a file in circles": said(
        Answer(302, headers={"Location": f"/datasets/{REPO}/resolve/main/train.jsonl"}),
        "/resolve/",
        Unavailable,
    ),
    "to wait for 400 digits of seconds": said(
        Answer(429, headers={"Retry-After": "9" * 400}), "/api/", RateLimited
    ),
    # --- what is said about the data ---
    "a file of this machine": names("/etc/passwd"),
    "files of this machine": names(f"'{OUTSIDE}/*.jsonl'"),
    "a file above the data set": names("../../other/main/train.jsonl"),
    "a file of another host": names(f"{ELSEWHERE}/train.jsonl"),
    "a file by its scheme": names("file:///etc/passwd"),
    "references of references": Lie(InvalidInput, card(LAUGHS)),
    "merges of merges": Lie(InvalidInput, card(MERGES)),
    "files that refer to themselves": Lie(InvalidInput, card("data_files: &a [*a]")),
    "a reference to itself": Lie(InvalidInput, card("a: &a [*a]")),
    "YAML of 5,000 levels": Lie(InvalidInput, card("a: " + "[" * 5000)),
    "a type of Python": Lie(AdapterError, card("a: !!python/object/apply:os.system ['false']")),
    "configurations that are a number": Lie(AdapterError, card("configs: 7")),
    "a README.md of 5 MB": Lie(InvalidInput, {**GOOD, "README.md": b"x" * (5 << 20)}),
    "a program": Lie(
        AdapterError, {"rows.py": f"open('{OUTSIDE}/ran', 'w')".encode(), "README.md": b"# Rows\n"}
    ),
    "a program next to the rows": Lie(Unsupported, {**GOOD, "rows.py": b"raise SystemExit('ran')"}),
    # --- rows that do harm ---
    "a row of 20 MB in gzip": holds("train.jsonl.gz", gzip.compress(BOMB)),
    "a row of 20 MB in gzip, streamed": holds("train.jsonl.gz", gzip.compress(BOMB), True),
    "a row of 20 MB in bz2": holds("train.jsonl.bz2", bz2.compress(BOMB, 1)),
    "a row of 20 MB in xz": holds("train.jsonl.xz", lzma.compress(BOMB, preset=0)),
    "22 MB of short rows in gzip": holds("train.jsonl.gz", gzip.compress(SHORT)),
    "a long line": holds("train.jsonl", b'{"text": "' + b"x" * 200_000 + b'"}\n'),
    "a long line, streamed": holds("train.jsonl", b'{"text": "' + b"x" * 200_000 + b'"}', True),
    "a long line of text": holds("train.txt", b"x" * 200_000),
    "a long value of an array": holds("train.json", b'[{"text": "' + b"x" * 900_000 + b'"}]'),
    "a long cell": holds("train.csv", b'a,b\n"' + b"x\n" * 200_000 + b'",1\n'),
    "a long cell of a TSV": holds("train.tsv", b'a\tb\n"' + b"x\n" * 200_000 + b'"\t1\n'),
    "a row of 100,000 levels": holds("train.jsonl", b'{"a": 1}\n' + b"[" * 90_000 + b"\n"),
    "spaces without end": holds("train.jsonl", b" " * 400_000),
    "a damaged Parquet": holds("train.parquet", b"PAR1" + b"\xff" * 999 + b"PAR1"),
}
REFUSED: set[str] = set()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[LoopbackHub]:
    with LoopbackHub() as other:
        other.commit("org/evil", {"train.jsonl": b'{"n": 666}\n'}, "dataset")
        yield other


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with LoopbackHub() as hub:
        redirect(hub, tmp_path / "home", monkeypatch)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
        yield hub


def filled_in(value: Any, words: Mapping[str, str]) -> Any:
    """Put addresses and folders, which are known by now, into what a hub has and says."""
    if isinstance(value, dict):
        return {key: filled_in(item, words) for key, item in value.items()}
    for word, text in words.items():
        if isinstance(value, str):
            value = value.replace(word, text)
        elif isinstance(value, bytes) and len(value) < 1 << 16:
            value = value.replace(word.encode(), text.encode())
    return value


def wrong_in(cache: Path) -> list[str]:
    """Return the files of a cache that are not what their names say, and links that lead out."""
    wrong = []
    for path in cache.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(cache.resolve()):
            wrong.append(f"{path} leads out")
        if path.is_file() and path.parent.name == "blobs":
            content = path.read_bytes()
            if path.name not in (git_id(content), hashlib.sha256(content).hexdigest()):
                wrong.append(f"{path} has another hash")
        if path.is_file() and path.parent.name == "incoming":
            wrong.append(f"{path} is left")
    return wrong


def tree(folder: Path, *without: Path) -> list[str]:
    inside = (p for p in folder.rglob("*") if not any(map(p.is_relative_to, without)))
    return sorted(map(str, inside))


@pytest.mark.parametrize("name", LIES)
def test_a_lie_becomes_an_error_or_nothing(
    name: str, hub: LoopbackHub, elsewhere: LoopbackHub, tmp_path: Path
) -> None:
    lie = LIES[name]
    outside, cache, home = (tmp_path / part for part in ("outside", "cache", "home"))
    outside.mkdir()
    (outside / "secret.jsonl").write_text('{"n": 7}\n')
    words = {OUTSIDE: str(outside), ELSEWHERE: elsewhere.url}
    hub.commit(REPO, filled_in(dict(lie.files), words), "dataset")
    if lie.fault is not None:
        said = {key: filled_in(value, words) for key, value in vars(lie.fault).items()}
        hub.fail(type(lie.fault)(**said), path=lie.path, method=lie.method, skip=lie.skip)
    options = {"use": hf_datasets, "cache_dir": cache, "token": hub.token, **LIMITS}
    store = Kitchen(adapters={"dataset_store": options}).dataset_store
    before = tree(tmp_path, cache, home)
    started = time.monotonic()

    def rows() -> list[dict[str, Any]]:
        return store.to_list(store.load_dataset(REPO, streaming=lie.streaming))

    if lie.error is None:
        assert rows() == [{"n": 1}, {"n": 2}]
    else:
        with pytest.raises(lie.error) as caught:
            rows()
        assert type(caught.value) is not AdapterError, caught.value
        assert REPO in str(caught.value)
        assert "secret" not in str(caught.value)
        assert len(str(caught.value)) < 3000
        if isinstance(caught.value, RateLimited):
            assert caught.value.retry_after is None or 0 <= caught.value.retry_after <= 3600

    assert time.monotonic() - started < 60
    assert tree(tmp_path, cache, home) == before
    assert wrong_in(cache) + wrong_in(home) == []
    assert all("authorization" not in request.headers for request in elsewhere.requests)
    REFUSED.add(name)


def test_all_of_them_were_refused(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says how many there are; the tests above say which was believed."""
    if len(REFUSED) + request.session.testsfailed < len(LIES):
        pytest.skip("not all of the tests above were run")
    with capsys.disabled():
        print(f"\n{len(REFUSED)} of {len(LIES)} answers of a hub that lies about data were refused")
    assert set(LIES) == REFUSED


def test_a_file_of_this_machine_may_be_as_large_as_it_likes(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(BOMB))
    options = {"use": hf_datasets, "cache_dir": tmp_path / "cache", **LIMITS}
    store = Kitchen(adapters={"dataset_store": options}).dataset_store
    [row] = store.to_list(store.load_dataset(str(tmp_path / "train.jsonl.gz")))
    assert len(row["text"]) == 20 << 20


CHILD = """
import resource, sys
from crucible_kitchen import AdapterError, Kitchen
options = {"use": "hf-datasets", "cache_dir": sys.argv[1]}
store = Kitchen(adapters={"dataset_store": options}).dataset_store
try:
    store.to_list(store.load_dataset("org/rows", streaming=sys.argv[2] == "streamed"))
except AdapterError as error:
    print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@functools.cache
def bomb(size: int) -> bytes:
    """Return a row of text of this many bytes, compressed a thousandfold."""
    packer = lzma.LZMACompressor(preset=0)
    parts = [packer.compress(b'{"text": "')]
    parts += [packer.compress(b"x" * (1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, packer.compress(b'"}'), packer.flush()])


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_bomb_takes_a_bounded_part_of_the_memory(
    hub: LoopbackHub, tmp_path: Path, way: str
) -> None:
    """With the bounds that are set by default."""
    hub.commit(REPO, {"train.jsonl.xz": bomb(800 << 20)}, "dataset")
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "cache"), way],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"USE_TORCH": "0"} | environment(hub, tmp_path / "home"),
        check=True,
    )
    error, megabytes = run.stdout.split()
    assert error == "InvalidInput"
    assert int(megabytes) < 800
