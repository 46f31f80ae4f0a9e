"""A hub on this machine that speaks Hugging Face's protocol, and fails when it is told to.

    with LoopbackHub() as hub:
        commit = hub.commit("org/tiny", {"config.json": b"{}", "model.safetensors": weights})
        hub.tag("org/tiny", "v1", commit)
        hub.fail(Answer(429, headers={"Retry-After": "7"}), path="/resolve/")
        ...
        assert [request.path for request in hub.requests] == [...]

It serves what huggingface_hub 2.4 and datasets 5.2 ask for. Libraries that read the address from
their environment when they are imported need `environment(hub)` in a process of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

if TYPE_CHECKING:
    import pytest

Files = Mapping[str, bytes]

LFS = (".safetensors", ".bin", ".parquet", ".arrow", ".gz")
"""Ends of the names of files that are kept in Git LFS, as the hub does with large ones."""


def environment(hub: LoopbackHub, home: Path) -> dict[str, str]:
    """Return the variables that send a process of Hugging Face's libraries to this hub alone."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def redirect(hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the same to this process, where the libraries have read their variables long ago.

    It also leaves out the seconds that they wait before they try again.
    """
    import datasets.config
    from huggingface_hub import HfFileSystem, constants, file_download
    from huggingface_hub.utils import _http

    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    for name in vars(datasets.config):
        if name.startswith("STREAMING_") and name.endswith("_INTERVAL"):
            monkeypatch.setattr(datasets.config, name, 0)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for module in (_http, file_download):
        without_waiting = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        monkeypatch.setattr(module, "time", without_waiting)
    HfFileSystem.clear_instance_cache()


# --- faults ---


@dataclass(frozen=True)
class Answer:
    """Answer with a status, and with the hub's code for what is wrong, instead of the content."""

    status: int
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Cut:
    """Cut the connection: before the answer (None), or after this share of its body."""

    after: float | None = None


@dataclass(frozen=True)
class Truncated:
    """Answer with half of the body, as if that were all of it."""


@dataclass(frozen=True)
class WrongBytes:
    """Answer with other bytes, as many."""


@dataclass(frozen=True)
class Silent:
    """Do not answer until the hub closes."""


@dataclass(frozen=True)
class Altered:
    """Answer with the right content, under other headers; None leaves one out."""

    headers: Mapping[str, str | None]


@dataclass(frozen=True)
class Endless:
    """Answer with this status and headers, and this piece of a body again and again."""

    piece: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0
    """Seconds before each piece."""


@dataclass(frozen=True)
class EndlessHead:
    """Answer with a head that never ends, letter by letter."""

    pause: float


Fault = Answer | Cut | Truncated | WrongBytes | Silent | Altered | Endless | EndlessHead


@dataclass
class _Plan:
    fault: Fault
    path: str
    method: str
    skip: int
    times: float


@dataclass(frozen=True)
class Request:
    """A request that the hub got. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


# --- contents ---


@dataclass
class _Repo:
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


def git_id(content: bytes) -> str:
    """Return the id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def commit_id(files: Files) -> str:
    """Return a commit's id: a function of its contents."""
    listing = json.dumps({name: git_id(files[name]) for name in sorted(files)})
    return hashlib.sha1(listing.encode()).hexdigest()


class LoopbackHub:
    """A hub at `url`, from `with` or `start` on. Its contents may change while it serves."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.token = "hf_goodgoodgood"
        """The one token that it knows."""
        self.before: Callable[[Request], object] = lambda request: None
        """Called with every request before it is answered."""
        self._repos: dict[tuple[str, str], _Repo] = {}
        self._uploads: dict[str, bytes] = {}
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving: connections to `url` are refused from now on."""
        self._closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- what it holds ---

    def commit(
        self, repo_id: str, files: Files | Path, repo_type: str = "model", branch: str = "main"
    ) -> str:
        """Put a tree of files, or a folder's, at the tip of a branch; return the commit's id."""
        if isinstance(files, Path):
            found = (path for path in files.rglob("*") if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in found}
        repo = self._repos.setdefault((repo_type, repo_id), _Repo())
        commit = commit_id(files)
        repo.commits[commit] = dict(files)
        repo.refs[branch] = commit
        return commit

    def tag(self, repo_id: str, name: str, commit: str, repo_type: str = "model") -> None:
        self._repos[repo_type, repo_id].refs[name] = commit

    def gate(self, repo_id: str, repo_type: str = "model") -> None:
        """Refuse the repository's files without `token`; that it exists stays visible."""
        self._repos[repo_type, repo_id].gated = True

    def hide(self, repo_id: str, repo_type: str = "model") -> None:
        """Answer 401 without `token`, as if there were no such repository."""
        self._repos[repo_type, repo_id].private = True

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> Files:
        repo = self._repos[repo_type, repo_id]
        return repo.commits[repo.refs.get(revision, revision)]

    # --- how it fails ---

    def fail(
        self,
        fault: Fault,
        *,
        path: str = "",
        method: str = "",
        skip: int = 0,
        times: float = float("inf"),
    ) -> None:
        """Fail requests, from now on, whose path holds `path`: all, or `times` after `skip`."""
        with self._lock:
            self._plans.append(_Plan(fault, path, method, skip, times))

    def mend(self) -> None:
        """Fail no more."""
        with self._lock:
            self._plans.clear()

    def _received(self, request: Request) -> Fault | None:
        """Record a request and say how it is to fail."""
        with self._lock:
            self.requests.append(request)
            for plan in self._plans:
                if plan.path in request.path and plan.method in request.method:
                    if plan.skip:
                        plan.skip -= 1
                    elif plan.times:
                        plan.times -= 1
                        return plan.fault
        return None


class _Refused(Exception):
    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        super().__init__(message)
        self.answer = Answer(status, code, {"X-Error-Message": message, **headers})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: LoopbackHub

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._connections):
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that leave are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(self.path), headers)
        fault = self.server.hub._received(request)
        self.server.hub.before(request)
        match fault:
            case Answer():
                return self._answer_error(fault)
            case Silent():
                self.server.hub._closing.wait()
                return self._cut()
            case Cut(after=None):
                return self._cut()
            case Endless() | EndlessHead():
                return self._endless(fault)
        try:
            content, extra = self._content(body)
        except _Refused as refused:
            return self._answer_error(refused.answer)
        return self._answer(content, extra, fault)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)

    def _endless(self, fault: Endless | EndlessHead) -> None:
        self.close_connection = True
        piece = b"x"
        with suppress(OSError):
            if isinstance(fault, Endless):
                self.send_response(fault.status)
                for name, value in fault.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                piece = fault.piece
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while self.command != "HEAD" or isinstance(fault, EndlessHead):
                if self.server.hub._closing.wait(fault.pause):
                    break
                self.wfile.write(piece)

    def _answer_error(self, answer: Answer) -> None:
        error = json.dumps({"error": HTTPStatus(answer.status).phrase}).encode()
        content = error if answer.body is None else answer.body
        code = {"X-Error-Code": answer.code} if answer.code else {}
        self._send(answer.status, content, {**code, **answer.headers})

    def _answer(self, content: bytes, extra: Mapping[str, str], fault: Fault | None) -> None:
        status, headers = 200, dict(extra)
        if isinstance(fault, Altered):
            altered = {name.lower(): value for name, value in fault.headers.items()}
            headers = {n: v for n, v in headers.items() if n.lower() not in altered}
            headers |= {n: v for n, v in fault.headers.items() if v is not None}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found and content:
            start = int(found[1])
            end = min(int(found[2] or len(content) - 1), len(content) - 1)
            if start > end:
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            status, content = 206, content[start : end + 1]
        match fault:
            case WrongBytes():
                content = bytes(byte ^ 1 for byte in content)
            case Truncated():
                content = content[: len(content) // 2]
            case Cut(after=float(share)):
                return self._send(status, content, headers, int(len(content) * share))
        return self._send(status, content, headers)

    def _send(
        self, status: int, content: bytes, headers: Mapping[str, str], until: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:until])
        if until is not None:
            self.wfile.flush()
            self._cut()

    # --- routes ---

    def _content(self, body: bytes) -> tuple[bytes, Mapping[str, str]]:
        """Return what was asked for, and further headers."""
        url = urlsplit(self.path)
        path = url.path
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if path == "/api/whoami-v2":
            return self._json(self._whoami())
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            self.server.hub._uploads[found[1]] = body
            return b"", {}
        if found := re.fullmatch(r"/(datasets/|spaces/)?(.+)\.git/info/lfs/objects/batch", path):
            self._repo(found[1], found[2])
            return self._json(self._lfs_batch(json.loads(body)))
        if found := re.fullmatch(r"/(datasets/|spaces/)?(.+?)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*found.groups())
        if found := re.fullmatch(
            r"/api/(models/|datasets/|spaces/)(.+?)(?:/(revision|tree|paths-info|preupload|commit)"
            r"/([^/]+)(?:/(.*))?)?",
            path,
        ):
            kind, repo_id, verb, revision, rest = found.groups()
            return self._api(
                (kind, repo_id, unquote(revision or "main")), verb, unquote(rest or ""), query, body
            )
        if path in ("/api/models", "/api/datasets"):
            return self._json([])
        raise _Refused(404, None, f"no route {path}")

    @staticmethod
    def _json(answer: object) -> tuple[bytes, Mapping[str, str]]:
        return json.dumps(answer).encode(), {"Content-Type": "application/json"}

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server.hub.token}"

    def _whoami(self) -> object:
        if not self._authorized():
            raise _Refused(401, None, "Invalid credentials in Authorization header")
        return {"type": "user", "name": "cook", "orgs": [], "auth": {"type": "access_token"}}

    def _repo(self, kind: str | None, repo_id: str) -> _Repo:
        repo_type = (kind or "models/").removesuffix("s/")
        repo = self.server.hub._repos.get((repo_type, repo_id))
        if repo is None or (repo.private and not self._authorized()):
            status = 404 if self._authorized() else 401
            raise _Refused(status, "RepoNotFound", "Repository not found")
        return repo

    def _tree(self, kind: str | None, repo_id: str, revision: str) -> tuple[str, Files]:
        repo = self._repo(kind, repo_id)
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repo.commits[commit]

    def _resolve(
        self, kind: str | None, repo_id: str, revision: str, name: str
    ) -> tuple[bytes, Mapping[str, str]]:
        commit, files = self._tree(kind, repo_id, unquote(revision))
        if self._repo(kind, repo_id).gated and not self._authorized():
            raise _Refused(403, "GatedRepo", "Access to this repository is restricted")
        content = files.get(unquote(name))
        if content is None:
            said = {"X-Repo-Commit": commit}  # by which clients remember that there is none
            raise _Refused(404, "EntryNotFound", "Entry not found", **said)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if name.endswith(LFS):
            sha256 = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            return content, {**headers, **linked, "ETag": f'"{sha256}"'}
        return content, {**headers, "ETag": f'"{git_id(content)}"'}

    def _api(
        self,
        place: tuple[str, str, str],
        verb: str | None,
        rest: str,
        query: Mapping[str, str],
        body: bytes,
    ) -> tuple[bytes, Mapping[str, str]]:
        match verb:
            case "tree":
                return self._listing(place, rest, query)
            case "paths-info":
                return self._json(self._paths_info(place, body))
            case "preupload":
                return self._json(self._preupload(place, body))
            case "commit":
                return self._json(self._commit(place, body))
        commit, files = self._tree(*place)
        siblings = [{"rfilename": name} for name in sorted(files)]
        return self._json({"id": place[1], "sha": commit, "siblings": siblings, "tags": []})

    def _listing(
        self, place: tuple[str, str, str], under: str, query: Mapping[str, str]
    ) -> tuple[bytes, Mapping[str, str]]:
        """Answer in pages of `limit`, as the hub does from 1000 on."""
        _, files = self._tree(*place)
        inside = f"{under}/" if under else ""
        names = [name for name in sorted(files) if name.startswith(inside)]
        if not names:
            raise _Refused(404, "EntryNotFound", f"{under} does not exist")
        deep = query.get("recursive", "").lower() == "true"
        folders = sorted(
            {
                "/".join(parts[:depth])
                for parts in (name.split("/") for name in names)
                for depth in range(1, len(parts))
            }
        )
        shown = [folder for folder in folders if folder.startswith(inside)] + names
        if not deep:
            shown = [name for name in shown if "/" not in name.removeprefix(inside)]
        entries = [self._entry(name, files) for name in shown]
        start, size = int(query.get("cursor", 0)), int(query.get("limit", 1000))
        headers = {}
        if start + size < len(entries):
            more = f"{self.server.hub.url}{urlsplit(self.path).path}?recursive={deep}"
            headers["Link"] = f'<{more}&limit={size}&cursor={start + size}>; rel="next"'
        content, kind = self._json(entries[start : start + size])
        return content, {**kind, **headers}

    @staticmethod
    def _entry(name: str, files: Files) -> dict[str, Any]:
        content = files.get(name)
        if content is None:
            oid = hashlib.sha1(name.encode()).hexdigest()
            return {"type": "directory", "oid": oid, "size": 0, "path": name}
        entry = {"type": "file", "oid": git_id(content), "size": len(content), "path": name}
        if not name.endswith(LFS):
            return entry
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\n"
            f"size {len(content)}\n"
        ).encode()
        lfs = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
        return {**entry, "oid": git_id(pointer), "lfs": lfs}

    def _paths_info(self, place: tuple[str, str, str], body: bytes) -> object:
        _, files = self._tree(*place)
        asked = body.decode()
        paths = json.loads(asked)["paths"] if asked[:1] == "{" else parse_qs(asked)["paths"]
        return [
            self._entry(path, files)
            for path in paths
            if path in files or any(name.startswith(f"{path}/") for name in files)
        ]

    # --- uploads ---

    def _writable(self, place: tuple[str, str, str]) -> None:
        if not self._authorized():
            raise _Refused(401, None, "Invalid username or password.")
        self._tree(*place)

    def _preupload(self, place: tuple[str, str, str], body: bytes) -> object:
        self._writable(place)
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
        }

    def _lfs_batch(self, batch: Mapping[str, Any]) -> object:
        hub = self.server.hub
        return {
            "transfer": "basic",
            "objects": [
                {**each, "actions": {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}}
                for each in batch["objects"]
            ],
        }

    def _commit(self, place: tuple[str, str, str], body: bytes) -> object:
        self._writable(place)
        kind, repo_id, branch = place
        hub = self.server.hub
        _, before = self._tree(*place)
        files = dict(before)
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = hub._uploads[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = hub.commit(repo_id, files, kind.removesuffix("s/"), branch)
        prefix = "" if kind == "models/" else kind
        url = f"{hub.url}/{prefix}{quote(repo_id)}/commit/{commit}"
        return {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}
