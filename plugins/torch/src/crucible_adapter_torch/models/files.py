"""Files of a model: one that could not be asked for is not taken for one that it does not have."""

from __future__ import annotations

import huggingface_hub
from crucible_kitchen import Unavailable
from huggingface_hub import errors as hub_errors
from transformers.utils import cached_file

from .failures import is_unreachable
from .presence import Place


def find_file(name: str, file: str, at: Place, *, certain: bool = True) -> str | None:
    """Return the path of one of a model's files; None if it has no such file.

    Transformers treats a file as missing if the hub is away and the cache does not have it.

    Args:
        name: a folder, or a repository of the hub.
        file: its name in the model.
        at: where to take it from.
        certain: whether to raise, rather than return None, where the hub is not asked and the cache
            does not know whether there is such a file.

    Raises:
        Unavailable: the hub is not asked, and the cache does not know whether there is such a file.
        OSError: of Transformers, which `failures.translated` turns into errors of the contract.
    """
    try:
        found: str | None = cached_file(name, file, **at)
    except OSError as error:
        # Without a cause it is an answer: of a folder, the hub, or a cache that remembers that.
        if error.__cause__ is None:
            return None
        if not at["local_files_only"] or not is_unreachable(error):
            raise
        if not certain or _is_not_listed(name, file, at):
            return None
        raise Unavailable(
            f"the hub cannot be reached for model {name!r}, of which commit {at['revision']} is "
            f"cached in part: it may have a file {file!r}; load it once while the hub can be "
            "reached, or name a revision or a folder that is there whole"
        ) from error
    return found


def _is_not_listed(name: str, file: str, at: Place) -> bool:
    """Whether the cache has a list of the repository's files, as a download of all leaves one."""
    listing = getattr(huggingface_hub, "get_cached_repo_tree", None)  # since 2.0
    if listing is None:
        return False
    try:
        return all(each.path != file for each in listing(name, revision=at["revision"]))
    except hub_errors.CachedRepoTreeNotFoundError:
        return False
