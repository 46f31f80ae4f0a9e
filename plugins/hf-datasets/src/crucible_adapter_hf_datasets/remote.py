"""A data set of the Hub: its commit, the files of that commit, and how they are fetched.

Answers of the server are untrusted. A file is compared with its listed hash before it is published
in the cache, where `datasets` finds it: the library itself downloads nothing, since it would accept
any name and any content. Its other requests have limits.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, cast

from crucible_adapter_hf_hub import (
    Call,
    Checker,
    CommitFiles,
    Hub,
    Limits,
    Repo,
    RepoCache,
    calling,
    repository,
)
from crucible_kitchen import InvalidInput, NotFound, Unavailable, Unsupported

from .files import Bounds, DataFile, local
from .sources import Source

if TYPE_CHECKING:
    import yaml

Result = TypeVar("Result")

CARD = "README.md"
_PLACES = ("data_files", "data_dir")
_METADATA = (CARD, ".huggingface.yaml", "dataset_infos.json")
_LARGEST = 4 << 20
"""Largest file of metadata in bytes."""
_NODES = 200_000
"""Limit of its values, each counted as often as the file refers to it."""
_YAML = re.compile(r"\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", re.DOTALL)

_checker = Checker()


class Remote:
    """A data set of the Hub at the current commit of a revision.

    Args:
        source: the data set.
        revision: a branch, a tag or a commit; the main branch if None.
        token: access token of the Hub.
        limits: limits of time and size of each request.
        bounds: limits of its files.

    Raises:
        AdapterError: it does not exist, or the Hub does not answer, or not as a hub.
    """

    def __init__(
        self,
        source: Source,
        revision: str | None,
        token: str | None,
        limits: Limits,
        bounds: Bounds,
    ) -> None:
        self.source, self.token, self._limits, self.bounds = source, token, limits, bounds
        self.repo: Repo = repository(source.path, "dataset", revision or "main")
        self._hub = Hub(None, token, limits)
        self.commit = self._hub.resolve(self.repo)
        self._listing = self._hub.list(self.repo, self.commit)
        self.base = f"hf://datasets/{source.path}@{self.commit}/"

    def fetch(self, names: Iterable[str], folder: Path) -> list[Path]:
        """Put files into a cache, compared with their listing, and return their paths.

        Raises:
            NotFound: the commit does not have one of them.
            AdapterError: the Hub fails, or sends something other than it lists.
        """
        names = list(names)
        if lacking := next((name for name in names if name not in self._listing), None):
            raise NotFound(f"{self.source.label}: has no file {lacking!r} at commit {self.commit}")
        cache = RepoCache(folder, self.repo)
        cache.keep_listing(self.commit, self._listing)
        download = partial(self._hub.download, self.repo, self.commit)
        files = CommitFiles(
            self.source.label, self.commit, self._listing, cache, _checker, download
        )
        files.fetch(names)
        return [files.path(name) for name in names]

    def metadata(self) -> Path | None:
        """Put the metadata of the data set where `datasets` looks for it.

        Returns:
            Its README.md, or None.

        Raises:
            Unsupported: its rows are made by a program.
            InvalidInput: the metadata is too large, also by references to parts of itself.
        """
        if (program := f"{self.source.path.split('/')[-1]}.py") in self._listing:
            raise Unsupported(
                f"{self.source.label}: its rows are made by a program, {program}, and programs of "
                "a data set are never run"
            )
        names = [name for name in _METADATA if name in self._listing]
        for name in names:
            if (size := self._listing[name].size) > _LARGEST:
                raise InvalidInput(
                    f"{self.source.label}: its {name} has {size:,} bytes, more than {_LARGEST:,}"
                )
        paths = dict(zip(names, self.fetch(names, hub_cache()), strict=True))
        for name, path in paths.items():
            text = path.read_text(encoding="utf-8", errors="replace")
            found = _YAML.match(text) if name == CARD else None
            if name != _METADATA[2]:
                self._check(name, found[1] if found else "" if name == CARD else text)
        return paths.get(CARD)

    def _check(self, name: str, text: str) -> None:
        """Count the values of a YAML text, references such as `*a` included."""
        import yaml

        try:
            # Only the nodes: constructing their values may already exhaust the memory.
            nodes = [yaml.compose(text, Loader=yaml.SafeLoader)]
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise InvalidInput(
                f"{self.source.label}: its {name} is not YAML ({type(error).__name__})"
            ) from error
        places: list[yaml.Node] = []
        count = 0
        while nodes:
            node = nodes.pop()
            count += 1
            if count + len(nodes) > _NODES:
                raise InvalidInput(
                    f"{self.source.label}: its {name} has more than {_NODES:,} values"
                )
            if isinstance(node, yaml.MappingNode):
                nodes += itertools.chain.from_iterable(node.value)
                places += [value for key, value in node.value if key.value in _PLACES]
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value
        for place in places:  # no node refers to itself, or counting would not have ended
            self._check_addresses(place)

    def _check_addresses(self, node: yaml.Node) -> None:
        """Refuse files that a card names on other hosts, before `datasets` requests them."""
        if isinstance(node.value, str):
            if "://" in node.value:
                self.check(node.value)
            return
        for one in node.value:
            for part in one if isinstance(one, tuple) else (one,):
                self._check_addresses(part)

    def file(self, address: str, path: Path | None = None) -> DataFile:
        """Return the file at an address, which was fetched to `path`, or else is streamed."""
        if path is not None:
            return local(path, address, self.bounds)
        return DataFile(address, partial(_opened, address, self.token), self.bounds)

    def check(self, address: str) -> None:
        """Raise `InvalidInput` for the address of a file that is not on the Hub."""
        if not address.startswith("hf://"):
            raise InvalidInput(
                f"{self.source.label}: names {address[:200]!r} as one of its files, which is not "
                "on the Hub"
            )

    def name_of(self, address: str) -> str:
        """Return the name, in the data set, of the file at an address.

        Raises:
            InvalidInput: the file is not in this commit.
        """
        if not address.startswith(self.base):
            raise InvalidInput(
                f"{self.source.label}: names {address[:200]!r} as one of its files, which is not "
                f"in commit {self.commit}"
            )
        return address.removeprefix(self.base)

    def ask(self, function: Callable[[], Result]) -> Result:
        """Run a function of `datasets` that asks for lists of files; return its result."""
        call = self._call()
        call.most, call.seconds = self._limits.answer_bytes, self._limits.answer_timeout
        return call.run(function)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let `datasets` read contents in this block."""
        with calling(self._call()):
            yield

    def _call(self) -> Call:
        return Call(
            self.source.label,
            self._hub.endpoint,
            self._limits,
            elsewhere=True,
            library=True,
            commit=self.commit,
        )


def is_offline(source: Source, revision: str | None) -> bool:
    """Say whether requests to the Hub are disabled.

    Raises:
        Unavailable: they are, and only the Hub can resolve the revision.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and revision is not None:
        raise Unavailable(
            f"{source.label}: offline, revision {revision!r} cannot be looked up; without a "
            "revision, the cached version is used",
            retryable=False,
        )
    return bool(constants.HF_HUB_OFFLINE)


def hub_cache() -> Path:
    """Return the folder in which Hugging Face's libraries look for files of the Hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def kept(source: Source, commit: str, names: Iterable[str], folder: Path) -> list[Path]:
    """Return the paths of files that were fetched earlier.

    Raises:
        Unavailable: some of them are missing or damaged.
    """
    names = list(names)
    cache = RepoCache(folder, repository(source.path, "dataset", commit))
    listing = cache.listing(commit) or {}
    if missing := [name for name in names if name not in listing]:
        raise Unavailable(
            f"{source.label}: offline, and {missing[0]!r} was not fetched to {folder}",
            retryable=False,
        )
    files = CommitFiles(source.label, commit, listing, cache, _checker, None)
    files.fetch(names)
    return [files.path(name) for name in names]


def _opened(address: str, token: str | None) -> IO[bytes]:
    """Open a file of the Hub as a stream. A lost connection is made again."""
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    return cast("IO[bytes]", xopen(address, "rb", download_config=DownloadConfig(token=token)))
