"""What becomes of answers of a hub that lies: nothing outside of the cache, nothing in it that is
not what its name says, and an error that says what the hub sent, soon.

The hub is a real server on this machine. Each lie is sent to a client that downloads one file.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    HubClient,
    InvalidInput,
    RateLimited,
    Unavailable,
)
from loopback_hub import (
    Altered,
    Answer,
    Cut,
    Endless,
    EndlessHead,
    Fault,
    LoopbackHub,
    Request,
    WrongBytes,
    git_id,
)

REPO = "org/tiny"
FILE = "config.json"
FILES = {FILE: b'{"right": true}', "model.safetensors": b"weights" * 999}
LIMITS = {"timeout": 2, "answer_timeout": 1, "stall_timeout": 1, "max_answer_bytes": 100_000}
OID = git_id(FILES[FILE])
ELSEWHERE = "{elsewhere}"
OUTSIDE = "{outside}"

MakeClient = Callable[..., HubClient]


@dataclass(frozen=True)
class Lie:
    """What the hub says, to which request, and what has to come of it.

    Args:
        error: the class of the error; None if the right content has to come nevertheless.
    """

    fault: Fault
    path: str
    error: type[AdapterError] | None
    method: str = ""
    match: str = ""


def about(body: object, error: type[AdapterError] = Unavailable) -> Lie:
    """A lie about the commit that a branch is."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Lie(Answer(200, body=text), "/revision/", error)


def listed(*entries: object, match: str = "") -> Lie:
    """A lie about the files of the commit. `FILE` is among them, as it is."""
    honest = {"type": "file", "path": FILE, "size": len(FILES[FILE]), "oid": OID}
    return Lie(
        Answer(200, body=json.dumps([honest, *entries]).encode()),
        "/tree/",
        Unavailable,
        match=match,
    )


def named(path: object) -> Lie:
    return listed({"type": "file", "path": path, "size": 1, "oid": "a" * 40})


def file(**changes: object) -> Lie:
    return listed({"type": "file", "path": "other", "size": 1, "oid": "a" * 40, **changes})


def lfs(**changes: object) -> Lie:
    pointer = {"oid": "a" * 64, "size": 1, "pointerSize": 100, **changes}
    return file(lfs=pointer)


def headed(headers: Mapping[str, str | None], error: type[AdapterError] | None = None) -> Lie:
    """A lie in the headers of a file, for GET and HEAD."""
    return Lie(Altered(headers), "/resolve/", error)


def paged(address: str) -> Lie:
    header = {"Link": f'<{address}>; rel="next"', "Content-Type": "application/json"}
    honest = {"type": "file", "path": FILE, "size": len(FILES[FILE]), "oid": OID}
    answer = Answer(200, headers=header, body=json.dumps([honest]).encode())
    return Lie(answer, "/tree/", Unavailable)


def led(address: str, path: str = "/resolve/", **more: Any) -> Lie:
    return Lie(Answer(302, headers={"Location": address}), path, Unavailable, **more)


def later(value: str, status: int = 429, name: str = "Retry-After") -> Lie:
    error = RateLimited if status == 429 else AdapterTimeout if status == 408 else Unavailable
    return Lie(Answer(status, headers={name: value}), "/resolve/", error)


DEEP = b"[" * 100_000
LIES: dict[str, Lie] = {
    # --- hashes, where the library would make names of files of them ---
    "an ETag that is an absolute path": headed({"ETag": f'"{OUTSIDE}/evil.pth"'}),
    "an ETag that goes up": headed({"ETag": '"../../../../outside/evil"'}),
    "an ETag of another repository's cache": headed(
        {"ETag": '"../../models--org--other/refs/main"'}
    ),
    "an ETag with backslashes": headed({"ETag": r'"..\..\evil"'}),
    "an empty ETag": headed({"ETag": '""'}),
    "an ETag of 9,000 letters": headed({"ETag": f'"{"a" * 9000}"'}),
    "no ETag": headed({"ETag": None}),
    "an ETag of other content": headed({"ETag": f'"{"0" * 40}"'}),
    "a linked ETag that is an absolute path": headed({"X-Linked-Etag": f'"{OUTSIDE}/evil"'}),
    "a commit of a file that goes up": headed({"X-Repo-Commit": "../../../outside"}, Unavailable),
    "a commit of a file with a slash": headed({"X-Repo-Commit": "refs/main"}, Unavailable),
    "a commit of no file": Lie(
        Answer(404, "EntryNotFound", {"X-Repo-Commit": f"{OUTSIDE}/x"}), "/resolve/", AdapterError
    ),
    "a Content-Disposition outside": headed(
        {"Content-Disposition": f'attachment; filename="{OUTSIDE}/evil"'}
    ),
    "a Xet hash that is a path": headed({"X-Xet-Hash": "../../x"}, Unavailable),
    "a Xet token of another host": headed(
        {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{ELSEWHERE}/token"}, Unavailable
    ),
    "a linked size of 5,000 digits": headed({"X-Linked-Size": "9" * 5000}, Unavailable),
    "a negative linked size": headed({"X-Linked-Size": "-1"}, Unavailable),
    "a wrong linked size": headed({"X-Linked-Size": "7"}),
    # --- the commit of a branch ---
    "a commit that goes up": about({"id": REPO, "sha": "../../../outside"}),
    "a commit that is an absolute path": about({"id": REPO, "sha": f"{OUTSIDE}/x"}),
    "a commit with a slash": about({"id": REPO, "sha": "refs/heads/main"}),
    "a commit of capitals": about({"id": REPO, "sha": "A" * 40}),
    "a commit that is a number": about({"id": REPO, "sha": 7}),
    "a commit that is a list": about({"id": REPO, "sha": ["a" * 40]}),
    "a commit with a line break": about({"id": REPO, "sha": "a" * 40 + "\n"}),
    "no commit": about({"id": REPO}),
    "a list in place of an object": about([]),
    "null in place of an object": about(None),
    "a page of HTML": about(b"<html>Sign in</html>"),
    "an empty body": about(b""),
    "half of an object": about(b'{"id": "org/tiny", "sha": "aaaa'),
    "JSON of 100,000 levels": about(DEEP),
    "an integer of 5,000 digits": about(b'{"sha": ' + b"9" * 5000 + b"}"),
    "text that is no Unicode": about(b'{"sha": "\xff\xfe"}'),
    "a compressed answer": Lie(
        Answer(200, headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b"),
        "/revision/",
        Unavailable,
    ),
    "an answer with an invalid size": Lie(
        Answer(200, headers={"Content-Length": "9" * 300}, body=b"{}"), "/revision/", Unavailable
    ),
    "an answer larger than it may be": about(b'"' + b"x" * 100_000 + b'"'),
    "an answer that ends early": Lie(
        Answer(200, headers={"Content-Length": "99"}, body=b"{}"),
        "/revision/",
        AdapterError,  # the connection stays open: nothing more comes in time
    ),
    # --- names of files ---
    "a name that is an absolute path": named(f"{OUTSIDE}/evil"),
    "a name that goes up": named("../../../outside/evil"),
    "a name that goes up in the middle": named("a/../../../b"),
    "a name with backslashes": named(r"..\..\evil"),
    "a name with NUL": named("a\0b"),
    "a name with an escape sequence": named("\x1b[2Jevil"),
    "an empty name": named(""),
    "a name that is a dot": named("."),
    "a name with an empty part": named("a//b"),
    "a name of 300 letters": named("x" * 300),
    "a name of 4,000 letters": named("/".join(["x" * 99] * 40)),
    "half of a character in a name": named("a\ud800"),
    "a name that is a number": named(7),
    "a name that is null": named(None),
    "a name twice": named(FILE),
    "a file that is a folder, too": named(f"{FILE}/inside"),
    # --- entries ---
    "a negative size": file(size=-1),
    "a size that is a text": file(size="1"),
    "a size that is true": file(size=True),
    "a size that is a fraction": file(size=1.5),
    "a size of 400 digits": file(size=10**400),
    "a hash that is a path": file(oid="../../x"),
    "a hash of the wrong length": file(oid="a" * 64),
    "a hash of capitals": file(oid="A" * 40),
    "no hash": file(oid=None),
    "an LFS hash that is a path": lfs(oid=f"{OUTSIDE}/x"),
    "an LFS hash of git's length": lfs(oid="a" * 40),
    "a negative LFS size": lfs(size=-5),
    "LFS that is a list": file(lfs=[1]),
    "LFS that is empty": file(lfs={}),
    "an entry that is a number": listed(7),
    "an entry that is null": listed(None),
    "an entry without a type": listed({"path": "x"}),
    "a listing that is an object": Lie(Answer(200, body=b'{"a": 1}'), "/tree/", Unavailable),
    "a listing that is null": Lie(Answer(200, body=b"null"), "/tree/", Unavailable),
    "a listing of 100,000 levels": Lie(Answer(200, body=DEEP[:90_000]), "/tree/", Unavailable),
    # --- addresses ---
    "a next page that is this one": paged("{here}"),
    "a next page on another host": paged(f"{ELSEWHERE}/api/models/org/tiny/tree/x"),
    "a next page in a file": paged("file:///etc/passwd"),
    "a next page at no address": paged("http://[::1"),
    "a question sent to another host": led(f"{ELSEWHERE}/api", "/revision/"),
    "a question sent to a file": led("file:///etc/passwd", "/revision/"),
    "a question sent in circles": led("/api/models/org/tiny/revision/main", "/revision/"),
    "a file in circles": led("/org/tiny/resolve/main/config.json"),
    "a file on this disk": led("file:///etc/passwd"),
    "a file at no address": led("http://[::1"),
    "a file on another host, which has another": led(f"{ELSEWHERE}/org/evil/resolve/main/evil"),
    # --- contents ---
    "other content": Lie(WrongBytes(), "/resolve/", Unavailable, "GET"),
    "a page of HTML for a file": Lie(Answer(200, body=b"<html>"), "/resolve/", Unavailable, "GET"),
    "more content than listed": Lie(
        Answer(200, body=FILES[FILE] * 9), "/resolve/", Unavailable, "GET"
    ),
    "content without end": Lie(Endless(b"x" * 65536), "/resolve/", Unavailable, "GET"),
    "content without end for HEAD": Lie(Endless(b"x" * 65536), "/resolve/", Unavailable),
    "content byte by byte": Lie(Endless(b"x", pause=0.05), "/resolve/", AdapterTimeout, "GET"),
    "a bomb of gzip": Lie(
        Answer(200, headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b" + b"x" * 99),
        "/resolve/",
        Unavailable,
        "GET",
    ),
    "a connection that is cut each time": Lie(Cut(after=0.0), "/resolve/", Unavailable, "GET"),
    # --- without end ---
    "an answer without end": Lie(Endless(b" " * 65536), "/revision/", Unavailable),
    "an answer letter by letter": Lie(Endless(b" ", pause=0.05), "/revision/", AdapterTimeout),
    "a listing letter by letter": Lie(Endless(b" ", pause=0.05), "/tree/", AdapterTimeout),
    "a head letter by letter": Lie(EndlessHead(0.05), "/revision/", AdapterTimeout),
    "a head without end": Lie(EndlessHead(0.0), "/revision/", AdapterError),
    "a file's head letter by letter": Lie(EndlessHead(0.05), "/resolve/", AdapterTimeout),
    "a refusal without end": Lie(
        Endless(b"x" * 65536, 403, {"Content-Type": "application/json"}), "/revision/", AdapterError
    ),
    # --- when to come again ---
    "to wait a negative time": later("-5"),
    "to wait for 400 digits of seconds": later("9" * 400),
    "to wait for infinity": later("inf"),
    "to wait for what is no number": later("nan"),
    "to wait for letters": later("soon"),
    "to wait until the year 9999": later("Fri, 31 Dec 9999 23:59:59 GMT"),
    "to wait until a year of six digits": later("Fri, 31 Dec 999999 23:59:59 GMT"),
    "to wait for a month": later("2678400", 503),
    "to wait for a month after a timeout": later("2678400", 408),
    "a window of 5,000 digits": later(f'"api";r=0;t={"9" * 5000}', name="RateLimit"),
    # --- words ---
    "an escape sequence for a reason": Lie(
        Answer(403, headers={"X-Error-Message": "\x1b]0;evil\x07" + "no" * 900}),
        "/tree/",
        AdapterError,
    ),
    "a reason that is a list": Lie(
        Answer(400, body=b'{"errors": [1, null], "error": {"a": []}}'), "/tree/", InvalidInput
    ),
}
REFUSED: set[str] = set()


@pytest.fixture(autouse=True)
def commit(hub: LoopbackHub) -> str:
    hub.commit("org/other", {"refs": b"another repository"})
    return hub.commit(REPO, FILES)


@pytest.fixture
def elsewhere() -> Any:
    """Another host, which has other content, and the right one."""
    with LoopbackHub() as other:
        other.commit("org/evil", {"evil": b"evil", "right": FILES[FILE]})
        yield other


def filled_in(fault: Fault, words: Mapping[str, str]) -> Fault:
    """Put addresses and folders, which are known by now, into what a hub says."""

    def fill(value: Any) -> Any:
        for word, text in words.items():
            if isinstance(value, str):
                value = value.replace(word, text)
            elif isinstance(value, bytes):
                value = value.replace(word.encode(), text.encode())
        return {k: fill(v) for k, v in value.items()} if isinstance(value, dict) else value

    return type(fault)(**{name: fill(value) for name, value in vars(fault).items()})


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


def tree(folder: Path, without: Path) -> list[str]:
    return sorted(str(p) for p in folder.rglob("*") if not p.is_relative_to(without))


@pytest.mark.parametrize("name", LIES)
def test_a_lie_becomes_an_error_or_nothing(
    name: str,
    make: MakeClient,
    hub: LoopbackHub,
    elsewhere: LoopbackHub,
    cache: Path,
    tmp_path: Path,
    commit: str,
) -> None:
    lie = LIES[name]
    outside = tmp_path / "outside"
    outside.mkdir()
    here = f"{hub.url}/api/models/{REPO}/tree/{commit}?recursive=true&expand=false"
    words = {ELSEWHERE: elsewhere.url, OUTSIDE: str(outside), "{here}": here}
    hub.fail(filled_in(lie.fault, words), path=lie.path, method=lie.method)
    before = tree(tmp_path, cache)
    started = time.monotonic()
    client = make(token=hub.token, **LIMITS)

    if lie.error is None:
        assert client.download(REPO, FILE).read_bytes() == FILES[FILE]
    else:
        with pytest.raises(lie.error) as caught:
            client.download(REPO, FILE)
        told = str(caught.value)
        assert REPO in told
        assert told.isprintable()
        assert len(told) < 1000
        assert type(caught.value) is not AdapterError
        if isinstance(caught.value, RateLimited):
            assert caught.value.retry_after is None or 0 <= caught.value.retry_after <= 3600

    assert time.monotonic() - started < 10
    assert tree(tmp_path, cache) == before
    assert wrong_in(cache) == []
    assert all("authorization" not in request.headers for request in elsewhere.requests)
    REFUSED.add(name)


def test_contents_may_be_on_another_host_which_does_not_get_the_token(
    make: MakeClient, hub: LoopbackHub, elsewhere: LoopbackHub
) -> None:
    address = f"{elsewhere.url}/org/evil/resolve/main/right"
    hub.fail(Answer(302, headers={"Location": address}), path="/resolve/")
    assert make(token=hub.token).download(REPO, FILE).read_bytes() == FILES[FILE]
    assert "authorization" in hub.requests[0].headers
    assert elsewhere.requests != []
    assert all("authorization" not in request.headers for request in elsewhere.requests)


def test_a_lie_about_one_request_after_the_truth_is_found_as_well(
    make: MakeClient, hub: LoopbackHub, tmp_path: Path, cache: Path
) -> None:
    hub.fail(Altered({"ETag": f'"{tmp_path}/evil"'}), path="/resolve/", skip=1)
    folder = make(**LIMITS).snapshot(REPO)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert not (tmp_path / "evil").exists()
    assert wrong_in(cache) == []


def test_pages_without_end_are_an_error(make: MakeClient, hub: LoopbackHub) -> None:
    """Each is of another address, and has another file."""
    numbers = iter(range(1000))

    def turn(request: Request) -> None:
        number = next(numbers)
        entry = {"type": "file", "path": f"{number}.txt", "size": 1, "oid": "a" * 40}
        body = json.dumps([{**entry, "more": "x" * 10_000}]).encode()
        following = f'<{hub.url}/api/models/{REPO}/tree/x?cursor={number}>; rel="next"'
        hub.mend()
        hub.fail(Answer(200, headers={"Link": following}, body=body), path="/tree/")

    hub.before = turn
    with pytest.raises(Unavailable, match="more than 100,000 bytes"):
        make(**LIMITS).list_files(REPO)
    assert len(hub.requests) < 15


def test_a_poisoned_cache_is_not_believed(
    make: MakeClient, hub: LoopbackHub, cache: Path, tmp_path: Path
) -> None:
    """What another library, which believes everything, wrote there."""
    folder = cache / f"models--{REPO.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / OID).write_bytes(b"evil")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("../../../outside")
    (folder / "crucible").mkdir()
    entry = {"size": 1, "kind": "git", "digest": "a" * 40}
    record = {"format": 1, "files": {"evil": entry}}
    (tmp_path / "outside.json").write_text(json.dumps(record))
    with pytest.raises(Unavailable, match="offline"):
        make(offline=True).list_files(REPO)
    assert make().download(REPO, FILE).read_bytes() == FILES[FILE]
    assert wrong_in(cache) == []


CHILD = """
import resource, sys
from crucible_kitchen import AdapterError, Kitchen
options = {"use": "hf-hub", "endpoint": sys.argv[1], "cache_dir": sys.argv[2]}
try:
    Kitchen(adapters={"hub_client": options}).hub_client.list_files("org/tiny")
except AdapterError as error:
    print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Endless(b" " * (1 << 20)),
        Answer(200, body=b"[" + b"{}," * (5 << 20) + b"{}]"),
        Answer(200, body=b"[" * (15 << 20)),
    ],
    ids=["without end", "of small objects", "of brackets"],
)
def test_a_large_answer_takes_a_bounded_part_of_the_memory(
    hub: LoopbackHub, cache: Path, fault: Fault
) -> None:
    """With the limits that are set by default."""
    hub.fail(fault, path="/tree/")
    command = [sys.executable, "-c", CHILD, hub.url, str(cache)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    error, megabytes = run.stdout.split()
    assert error == "Unavailable"
    assert int(megabytes) < 800


def test_all_of_them_were_refused(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says how many there are; the tests above say which was believed."""
    if len(REFUSED) + request.session.testsfailed < len(LIES):
        pytest.skip("not all of the tests above were run")
    with capsys.disabled():
        print(f"\n{len(REFUSED)} of {len(LIES)} hub answers that lie were refused")
    assert set(LIES) == REFUSED
