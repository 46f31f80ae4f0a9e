"""Fetch models and data sets from the Hugging Face Hub, or a mirror of it.

What a callback returns is complete, comes from one commit, and was compared with the hub's listing
of that commit. It is kept in the cache that other libraries share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from crucible_kitchen import (
    AdapterOptions,
    FromEnv,
    LocalPath,
    NotFound,
    Unavailable,
    did_you_mean,
    helper,
    hookimpl,
    resource,
)
from pydantic import Field, SecretStr

from .cache import RepoCache
from .downloads import CommitFiles
from .failures import translated
from .hub import Hub
from .limits import Limits
from .listings import Checker, Listing
from .names import Repo, check_path, check_patterns, is_commit, repository


class Options(AdapterOptions):
    endpoint: Annotated[str | None, Field(pattern="^https?://"), FromEnv("HF_ENDPOINT")] = None
    """Address of the hub; `https://huggingface.co` if not set."""
    token: Annotated[SecretStr | None, FromEnv("HF_TOKEN")] = None
    """Access token; without one, the login of `hf auth login` is used."""
    cache_dir: LocalPath | None = None
    """Folder of downloaded files; the one that Hugging Face's libraries share if not set."""
    offline: Annotated[bool, FromEnv("HF_HUB_OFFLINE")] = False
    """Use only the cache, without any request."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds to wait for the hub's answer, or for the next bytes of a file."""
    answer_timeout: float = Field(default=60.0, gt=0)
    """Seconds until a request for information, such as a list of files, is answered completely."""
    stall_timeout: float = Field(default=60.0, gt=0)
    """Seconds within which at least 1024 bytes of a file have to arrive during a download."""
    max_answer_bytes: int = Field(default=64 << 20, gt=0)
    """Largest answer to a request for information in bytes; one page of it may have a quarter of
    that. The size of a file is limited by the listing."""


@resource
def _hub(opts: Options) -> Hub:
    token = opts.token.get_secret_value() if opts.token else None
    limits = Limits(opts.timeout, opts.answer_timeout, opts.stall_timeout, opts.max_answer_bytes)
    return Hub(opts.endpoint, token, limits)


@resource
def _checker(opts: Options) -> Checker:
    return Checker()


@hookimpl
def download(opts: Options, repo_id: str, filename: str, repo_type: str, revision: str) -> Path:
    repo = repository(repo_id, repo_type, revision)
    check_path(filename, "filename")
    with translated(str(repo)):
        commit, listing = _look_up(opts, repo)
        if filename not in listing:
            raise NotFound(
                f"{repo}: has no file {filename!r} at commit {commit}"
                f"{did_you_mean(filename, listing)}",
                details={"missing": "file"},
            )
        files = _files(opts, repo, commit, listing)
        files.fetch([filename])
    return files.path(filename)


@hookimpl
def snapshot(
    opts: Options,
    repo_id: str,
    repo_type: str,
    revision: str,
    allow_patterns: Sequence[str] | None,
    ignore_patterns: Sequence[str] | None,
) -> Path:
    from huggingface_hub.utils import filter_repo_objects

    repo = repository(repo_id, repo_type, revision)
    check_patterns(allow_patterns, "allow_patterns")
    check_patterns(ignore_patterns, "ignore_patterns")
    with translated(str(repo)):
        commit, listing = _look_up(opts, repo)
        files = _files(opts, repo, commit, listing)
        files.fetch(
            filter_repo_objects(
                listing, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        files.folder.mkdir(parents=True, exist_ok=True)  # in case nothing matches
    return files.folder


@hookimpl
def list_files(opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
    repo = repository(repo_id, repo_type, revision)
    with translated(str(repo)):
        _, listing = _look_up(opts, repo)
    return sorted(listing)


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
    repo = repository(repo_id, repo_type, revision)
    path_in_repo = path_in_repo.rstrip("/")
    if path_in_repo:
        check_path(path_in_repo, "path_in_repo")
    if opts.offline:
        raise Unavailable(f"{repo}: offline, nothing can be uploaded", retryable=False)
    files = list(_files_of(source, path_in_repo))
    return _hub(opts).upload(repo, files, message or f"Upload {path_in_repo or source.name}")


@helper
def commit_url(opts: Options, repo_id: str, commit: str, repo_type: str = "model") -> str:
    """Return the address of the page of a commit."""
    kind = "" if repo_type == "model" else f"{repo_type}s/"
    return f"{_hub(opts).endpoint}/{kind}{repo_id}/commit/{commit}"


@hookimpl
def ping(opts: Options) -> None:
    if not opts.offline:
        _hub(opts).ping()


@hookimpl
def close(opts: Options) -> None:
    _hub.pop(opts)
    _checker.pop(opts)


def _cache_dir(opts: Options) -> Path:
    from huggingface_hub import constants

    return Path(opts.cache_dir or constants.HF_HUB_CACHE).absolute()


def _look_up(opts: Options, repo: Repo) -> tuple[str, Listing]:
    """Return the commit of a repository's revision, and its files."""
    cache = RepoCache(_cache_dir(opts), repo)
    if opts.offline or is_commit(repo.revision):
        known = repo.revision if is_commit(repo.revision) else cache.commit_of(repo.revision)
        if known and (listing := cache.listing(known)) is not None:
            return known, listing
    if opts.offline:
        raise Unavailable(
            f"{repo}: offline, and the cache {_cache_dir(opts)} does not say which files it has; "
            "call once with `offline = false` to fetch it",
            retryable=False,
        )
    commit = _hub(opts).resolve(repo)
    if commit != repo.revision:
        cache.keep_commit(repo.revision, commit)
    listing = cache.listing(commit)
    if listing is None:
        listing = _hub(opts).list(repo, commit)
        cache.keep_listing(commit, listing)
    return commit, listing


def _files(opts: Options, repo: Repo, commit: str, listing: Listing) -> CommitFiles:
    cache = RepoCache(_cache_dir(opts), repo)
    download = None if opts.offline else partial(_hub(opts).download, repo, commit)
    return CommitFiles(str(repo), commit, listing, cache, _checker(opts), download)


def _files_of(source: Path, path_in_repo: str) -> Iterable[tuple[Path, str]]:
    """Yield local files with their paths in the repository; of a folder, all but git's own."""
    if source.is_dir():
        for file in sorted(source.rglob("*")):
            path = file.relative_to(source)
            if file.is_file() and ".git" not in path.parts:
                yield file, f"{path_in_repo}/{path.as_posix()}".lstrip("/")
    elif source.is_file():
        yield source, path_in_repo or source.name
    else:
        raise NotFound(f"there is no file or folder {source.absolute()} to upload")


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import HubClientOptionalSpec, HubClientSpec

    import crucible_adapter_hf_hub.hub_client as this_module

    _: HubClientSpec[Options] = this_module
    _optional: HubClientOptionalSpec[Options] = this_module
