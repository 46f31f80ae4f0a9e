"""Requests to a hub, through huggingface_hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from crucible_kitchen import PING_TIMEOUT, Unavailable

from .limits import Call, Limits, calling
from .listings import BadListing, Entry, Listing, entry_of, listing_of
from .names import Repo, is_commit

_TRIES = 6
"""Attempts of huggingface_hub to continue a download that is cut."""


class Hub:
    """A hub, or a mirror of one, as seen with one token.

    Args:
        endpoint: its address; None is huggingface_hub's own default.
        token: None is the login of `hf auth login`, if there is one.
        limits: limits of time and size of each request.
    """

    def __init__(self, endpoint: str | None, token: str | None, limits: Limits) -> None:
        from huggingface_hub import HfApi, __version__

        endpoint = endpoint.rstrip("/") if endpoint else None
        # Replaces the default, which reports to the hub what else is installed here.
        agent = {"user-agent": f"crucible-adapter-hf-hub; hf_hub/{__version__}"}
        self._api = HfApi(endpoint=endpoint, token=token, headers=agent)
        self._limits = limits

    @property
    def endpoint(self) -> str:
        """Its address."""
        return str(self._api.endpoint)

    def resolve(self, repo: Repo) -> str:
        """Return the current commit of the revision. (`HfApi.resolve_revision` would return an
        earlier one if the hub does not answer.)
        """
        url = self._url(repo, "revision", repo.revision)
        about = self._question(str(repo)).run(lambda: next(self._answers(url)))
        commit = about.get("sha") if isinstance(about, dict) else None
        if not is_commit(commit):
            raise Unavailable(f"{repo}: {self.endpoint} names no commit of it; is it a hub?")
        return str(commit)

    def list(self, repo: Repo, commit: str) -> Listing:
        """Return every file of the commit."""
        url = f"{self._url(repo, 'tree', commit)}?recursive=true&expand=false"

        def listing() -> Listing:
            pages = self._answers(url)
            files = (file for page in pages for file in page if file["type"] == "file")
            try:
                return listing_of((file["path"], _entry(file)) for file in files)
            except BadListing as error:
                raise Unavailable(f"{repo}: the hub lists {error}", retryable=False) from None

        return self._question(str(repo)).run(listing)

    def download(self, repo: Repo, commit: str, name: str, entry: Entry, path: Path) -> None:
        """Write a file of the commit to `path`, which exists.

        Nothing that the hub sends about the file names anything on this disk. At most the listed
        size is received, times the number of attempts.
        """
        call = Call(
            f"{repo}, file {name!r} on {self.endpoint}",
            self.endpoint,
            self._limits,
            most=_TRIES * entry.size + (1 << 20),
            elsewhere=True,
        )
        call.run(lambda: self._transfer(call, repo, commit, name, entry, path))

    def _transfer(
        self, call: Call, repo: Repo, commit: str, name: str, entry: Entry, path: Path
    ) -> None:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get, is_xet_available, xet_get
        from huggingface_hub.utils import build_hf_headers, silent_tqdm

        class Progress(silent_tqdm):  # type: ignore[misc]
            def update(self, count: float | None = 1) -> None:
                call.count(int(count or 0))

        url = hf_hub_url(
            repo.repo_id,
            name,
            repo_type=repo.repo_type,
            revision=commit,
            endpoint=self.endpoint,
        )
        about = get_hf_file_metadata(
            url,
            token=self._api.token,
            headers=self._api.headers,
            timeout=self._limits.timeout,
            endpoint=self.endpoint,
        )
        headers = build_hf_headers(token=self._api.token, headers=self._api.headers)
        if about.xet_file_data is not None and is_xet_available() and entry.size:
            xet_get(
                incomplete_path=path,
                xet_file_data=about.xet_file_data,
                headers=headers,
                expected_size=entry.size,
                tqdm_class=Progress,
            )
            return
        if entry.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            raise Unavailable(
                f"{call.what}: files of more than {constants.MAX_HTTP_DOWNLOAD_SIZE:,} bytes "
                "need the Xet protocol; install hf_xet",
                retryable=False,
            )
        with path.open("r+b") as file:
            http_get(
                about.location,
                file,
                headers=headers,
                expected_size=entry.size,
                tqdm_class=silent_tqdm,
            )

    def upload(self, repo: Repo, files: Iterable[tuple[Path, str]], message: str) -> str:
        """Add local files to the repository, in one commit; return its id.

        (`HfApi.upload_folder` makes several commits of a large folder.)
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.utils import disable_progress_bars

        call = self._question(str(repo))
        call.elsewhere = True
        with calling(call), disable_progress_bars():
            commit = self._api.create_commit(
                repo.repo_id,
                [CommitOperationAdd(name, file) for file, name in files],
                commit_message=message,
                repo_type=repo.repo_type,
                revision=repo.revision,
            )
        if not is_commit(commit.oid):
            raise Unavailable(f"{repo}: the hub did not name the commit of the upload")
        return str(commit.oid)

    def ping(self) -> None:
        """Ask whose the token is; without a token, ask for any answer."""
        from huggingface_hub import get_token

        call = self._question("ping")
        call.seconds = min(self._limits.timeout, PING_TIMEOUT)
        asks_who = self._api.token or get_token()
        path = "whoami-v2" if asks_who else "models?limit=1"
        call.run(lambda: next(self._answers(f"{self.endpoint}/api/{path}")))

    def _answers(self, url: str) -> Iterator[Any]:
        """Yield the hub's answer, page by page. (huggingface_hub would repeat it five times.)"""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers

        headers = build_hf_headers(token=self._api.token, headers=self._api.headers)
        asked = set()
        while url:
            if url in asked:
                raise ValueError("the next page is an earlier one")
            asked.add(url)
            answer = get_session().get(url, headers=headers)
            yield json.loads(answer.content)
            following = answer.links.get("next", {}).get("url")
            url = urljoin(url, following) if following else ""

    def _question(self, what: str) -> Call:
        limits = self._limits
        return Call(
            f"{what} on {self.endpoint}",
            self.endpoint,
            limits,
            most=limits.answer_bytes,
            seconds=limits.answer_timeout,
        )

    def _url(self, repo: Repo, verb: str, revision: str) -> str:
        place = f"{repo.repo_type}s/{repo.repo_id}/{verb}/{quote(revision, safe='')}"
        return f"{self.endpoint}/api/{place}"


def _entry(file: Any) -> Entry:
    if file.get("lfs") is None:
        return entry_of(file["size"], "git", file["oid"])
    return entry_of(file["lfs"]["size"], "sha256", file["lfs"]["oid"])
