"""What is asked of a hub, through huggingface_hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from crucible_kitchen import InvalidInput, Unavailable

from .listings import Entry, Listing
from .names import Repo, check_path
from .patience import limited

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST_PING = 5.0


def is_commit(revision: str) -> bool:
    """Say whether a revision is a whole commit id, which names the same content for ever."""
    return _COMMIT.fullmatch(revision) is not None


class Hub:
    """A hub, or a mirror of one, as seen with one token.

    Args:
        endpoint: its address; None is huggingface_hub's own default.
        token: None is the login of `hf auth login`, if there is one.
        timeout: seconds that one request may wait.
    """

    def __init__(self, endpoint: str | None, token: str | None, timeout: float) -> None:
        from huggingface_hub import HfApi, __version__

        endpoint = endpoint.rstrip("/") if endpoint else None
        # In place of the default, which tells the hub what else is installed here.
        agent = {"user-agent": f"crucible-adapter-hf-hub; hf_hub/{__version__}"}
        self._api = HfApi(endpoint=endpoint, token=token, headers=agent)
        self._timeout = timeout

    def resolve(self, repo: Repo) -> str:
        """Return the commit that the revision is now. (`HfApi.resolve_revision` would take what
        it was once where the hub does not answer.)
        """
        with self._asking(str(repo), once="GET"):
            try:
                commit = self._api.repo_info(
                    repo.repo_id, repo_type=repo.repo_type, revision=repo.revision
                ).sha
            except (KeyError, TypeError):  # JSON, but not about a repository
                commit = None
        if not is_commit(commit or ""):
            raise Unavailable(f"{repo}: {self._api.endpoint} names no commit of it; is it a hub?")
        return str(commit)

    def list(self, repo: Repo, commit: str) -> Listing:
        """Return every file of the commit."""
        with self._asking(str(repo), once="GET"):
            tree = list(
                self._api.list_repo_tree(
                    repo.repo_id, recursive=True, revision=commit, repo_type=repo.repo_type
                )
            )
        listing = {file.path: _entry(file) for file in tree if hasattr(file, "blob_id")}
        for path in listing:
            try:
                check_path(path, "file")
            except InvalidInput as error:
                raise Unavailable(f"{repo}: the hub lists a bad name: {error}") from None
        return listing

    def download(self, repo: Repo, commit: str, name: str, cache_dir: Path) -> None:
        """Put a file of the commit into the cache, unless there is one of its name."""
        from huggingface_hub.utils import silent_tqdm

        # A GET may be repeated: that is how a download which was cut is continued.
        with self._asking(f"{repo}, file {name!r}", once="HEAD"):
            self._api.hf_hub_download(
                repo.repo_id,
                name,
                repo_type=repo.repo_type,
                revision=commit,
                cache_dir=cache_dir,
                etag_timeout=self._timeout,
                tqdm_class=silent_tqdm,
            )

    def upload(self, repo: Repo, files: Iterable[tuple[Path, str]], message: str) -> str:
        """Put local files under names in the repository, in one commit; return its id.

        (`HfApi.upload_folder` makes several commits of a large folder.)
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.utils import disable_progress_bars

        with self._asking(str(repo)), disable_progress_bars():
            commit = self._api.create_commit(
                repo.repo_id,
                [CommitOperationAdd(name, file) for file, name in files],
                commit_message=message,
                repo_type=repo.repo_type,
                revision=repo.revision,
            )
        return str(commit.oid)

    def ping(self) -> None:
        """Ask who the token belongs to, or for any answer where there is no token."""
        from huggingface_hub import get_session, get_token
        from huggingface_hub.utils import hf_raise_for_status

        with limited(str(self._api.endpoint), min(self._timeout, _LONGEST_PING)):
            if self._api.token or get_token():
                self._api.whoami()
            else:  # `list_models` tries for half a minute
                url = f"{self._api.endpoint}/api/models"
                answer = get_session().get(url, params={"limit": 1}, headers=self._api.headers)
                hf_raise_for_status(answer)

    def _asking(self, what: str, once: str = "") -> AbstractContextManager[None]:
        return limited(f"{what} on {self._api.endpoint}", self._timeout, once)


def _entry(file: Any) -> Entry:
    if file.lfs is None:
        return Entry(file.size, "git", file.blob_id)
    return Entry(file.lfs.size, "sha256", file.lfs.sha256)
