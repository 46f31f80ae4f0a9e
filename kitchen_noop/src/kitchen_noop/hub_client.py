"""A hub where every repository exists, with a few synthetic files.

Repositories live in memory. Fetched files are written to a temporary folder, which `close` removes.
Uploads are commits, so a later download sees them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from crucible_kitchen import InvalidInput, NotFound, hookimpl, resource
from pydantic import Field

from .conditions import Conditions, round_trip, synthetic  # noqa: F401

_LIST_LATENCY = 0.01
_FILE_LATENCY = 0.02
"""Seconds."""

_FILES: Final[Mapping[str, Mapping[str, bytes]]] = {
    "model": {
        "README.md": b"# A synthetic model\n",
        "config.json": b'{"model_type": "noop"}\n',
        "model.safetensors": (2).to_bytes(8, "little") + b"{}",  # a valid file without tensors
        "tokenizer/chars.json": b'{"type": "characters"}\n',
    },
    "dataset": {
        "README.md": b"# A synthetic data set\n",
        "data/test.jsonl": b'{"prompt": "What is 1 + 2?", "completion": "3"}\n',
        "data/train.jsonl": b'{"prompt": "What is 2 + 2?", "completion": "4"}\n',
    },
    "space": {"README.md": b"# A synthetic space\n", "app.py": b"print('noop')\n"},
}
"""The initial files of a repository of each type."""

Files: TypeAlias = Mapping[str, bytes]


class Options(Conditions):
    repositories: tuple[str, ...] | None = None
    """The repositories that exist; unset, all of them."""
    revisions: tuple[str, ...] = Field(default=("main",), min_length=1)
    """The branches of every repository."""


@dataclass(slots=True)
class Repository:
    """Commits by id, and the newest of each branch."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str, message: str) -> str:
        digest = hashlib.sha1(repr((self.branches.get(branch), branch, message)).encode())
        for path, content in sorted(files.items()):
            digest.update(repr((path, content)).encode())
        commit = digest.hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit


@dataclass(frozen=True, slots=True)
class Hub:
    lock: threading.Lock = field(default_factory=threading.Lock)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)


@resource
def _hub(opts: Options) -> Hub:
    return Hub()


class Cache:
    """A temporary folder, removed at the latest when the process ends."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kitchen-noop-hub-"))
        self.remove = weakref.finalize(self, _remove, self.folder, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child ends before its parent does
        shutil.rmtree(folder, ignore_errors=True)


@resource
def _cache(opts: Options) -> Cache:
    return Cache()


@hookimpl
def close(opts: Options) -> None:
    if (made := _cache.pop(opts)) is not None:
        made.remove()


@hookimpl
def download(opts: Options, repo_id: str, filename: str, repo_type: str, revision: str) -> Path:
    round_trip(opts, _FILE_LATENCY)
    commit, files = _resolve(opts, repo_id, repo_type, revision)
    if filename not in files:
        raise NotFound(
            f"no file {filename!r} in {repo_type} {repo_id!r} at {revision!r}; there are "
            f"{', '.join(sorted(files))}"
        )
    return _fetch(opts, repo_id, repo_type, commit, {filename: files[filename]}) / filename


@hookimpl
def snapshot(
    opts: Options,
    repo_id: str,
    repo_type: str,
    revision: str,
    allow_patterns: Sequence[str] | None,
    ignore_patterns: Sequence[str] | None,
) -> Path:
    commit, files = _resolve(opts, repo_id, repo_type, revision)
    chosen = {
        path: content
        for path, content in files.items()
        if (allow_patterns is None or _matches(path, allow_patterns))
        and not _matches(path, ignore_patterns or ())
    }
    round_trip(opts, _FILE_LATENCY * len(chosen))
    return _fetch(opts, repo_id, repo_type, commit, chosen)


@hookimpl
def list_files(opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
    round_trip(opts, _LIST_LATENCY)
    return sorted(_resolve(opts, repo_id, repo_type, revision)[1])


@hookimpl
def upload(
    opts: Options,
    repo_id: str,
    source: Path,
    path_in_repo: str,
    repo_type: str,
    revision: str,
    message: str | None,
) -> str:
    new = _read(source, path_in_repo)
    round_trip(opts, _FILE_LATENCY * len(new))
    with _hub(opts).lock:
        repository = _repository(opts, repo_id, repo_type)
        if revision not in repository.branches:
            raise NotFound(
                f"no branch {revision!r} of {repo_type} {repo_id!r} to commit to; there are "
                f"{', '.join(repository.branches)}"
            )
        old = repository.commits[repository.branches[revision]]
        return repository.commit({**old, **new}, revision, message or "")


def _resolve(opts: Options, repo_id: str, repo_type: str, revision: str) -> tuple[str, Files]:
    """Return the commit of a revision, and its files."""
    with _hub(opts).lock:
        repository = _repository(opts, repo_id, repo_type)
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise NotFound(
                f"no revision {revision!r} of {repo_type} {repo_id!r}; there are the branches "
                f"{', '.join(repository.branches)}"
            )
        return commit, repository.commits[commit]


def _repository(opts: Options, repo_id: str, repo_type: str) -> Repository:
    """Return a repository, made on first use; the caller holds the hub's lock."""
    if repo_type not in _FILES:
        raise InvalidInput(f"no repo_type {repo_type!r}; there are {', '.join(_FILES)}")
    if opts.repositories is not None and repo_id not in opts.repositories:
        raise NotFound(f"no repository {repo_id!r}; there are {', '.join(opts.repositories)}")
    repositories = _hub(opts).repositories
    if (repo_type, repo_id) not in repositories:
        repositories[repo_type, repo_id] = repository = Repository()
        for branch in opts.revisions:
            repository.commit(_FILES[repo_type], branch, f"Create {repo_id}")
    return repositories[repo_type, repo_id]


def _matches(path: str, patterns: Iterable[str]) -> bool:
    # As on the Hugging Face Hub: shell patterns on the whole path, "folder/" for all below it.
    return any(
        fnmatch.fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)
        for pattern in patterns
    )


def _fetch(opts: Options, repo_id: str, repo_type: str, commit: str, files: Files) -> Path:
    """Write the missing files of a commit; return the commit's folder."""
    folder = _cache(opts).folder / repo_type / quote(repo_id, safe="") / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        # Other threads may fetch the same file: each writes a temporary one, and the last stays.
        handle, temporary = tempfile.mkstemp(dir=_cache(opts).folder)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    return folder


def _read(source: Path, path_in_repo: str) -> dict[str, bytes]:
    """Return the contents to upload, by path in the repository."""
    target = PurePosixPath(path_in_repo)
    if target.is_absolute() or ".." in target.parts:
        raise InvalidInput(f"path_in_repo {path_in_repo!r} is not a path below the repository")
    if source.is_file():
        return {str(target if target.parts else PurePosixPath(source.name)): source.read_bytes()}
    if not source.is_dir():
        raise InvalidInput(f"there is no file or folder {str(source)!r} to upload")
    return {
        str(target / file.relative_to(source).as_posix()): file.read_bytes()
        for file in sorted(source.rglob("*"))
        if file.is_file()
    }


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import HubClientOptionalSpec, HubClientSpec

    import kitchen_noop.hub_client as this_module

    _: HubClientSpec[Options] = this_module
    _optional: HubClientOptionalSpec[Options] = this_module
