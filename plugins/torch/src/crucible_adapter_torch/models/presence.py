"""Whether there is a model of a name, and at which commit, asked of the hub without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from huggingface_hub import errors as hub_errors
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

from ..options import ModelOptions
from .failures import MISSING, is_unreachable, translated

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
COMMIT_HEADER = "x-repo-commit"
BUSY = (408, 429, 500, 502, 503, 504)
"""Answers of a hub that cannot serve at present."""


class Place(TypedDict):
    """Where the files of a model are taken from: arguments of Transformers' functions.

    `revision` is a branch, tag or commit. With `local_files_only` the hub is not asked.
    """

    revision: str | None
    local_files_only: bool


def place_of(name: str, revision: str | None) -> Place:
    """Return where to take every file of a model from: from the cache, if that has its commit.

    Transformers asks the hub for each file of a branch, and for each of a commit that is not in the
    cache; where the hub does not serve it waits 23 s each time. So the hub is asked once, here,
    whether it serves, and whether the branch has moved. Where it does not serve, the commit that is
    cached is taken, and nothing is asked for.

    Args:
        name: a folder, or a repository of the hub.
        revision: a branch, tag or commit.

    Raises:
        Exception: of the hub's client, if the hub cannot be reached and nothing is cached.
    """
    asked = Place(revision=revision, local_files_only=False)
    if Path(name).is_dir():
        return asked
    known = _cached_commit(name, revision)
    cached = Place(revision=known, local_files_only=False)
    away = False
    try:
        newest = get_hf_file_metadata(hf_hub_url(name, CONFIG, revision=revision)).commit_hash
    except hub_errors.HfHubHTTPError as error:  # an answer; later calls interpret it
        away = error.response.status_code in BUSY
        newest = error.response.headers.get(COMMIT_HEADER)
    except Exception as error:
        if known is None or not is_unreachable(error):
            raise
        away, newest = True, None
    if known is None:
        return asked
    if away:
        return Place(revision=known, local_files_only=True)
    return cached if newest == known else asked


def _cached_commit(name: str, revision: str | None) -> str | None:
    """Return the commit of which a configuration is in the cache, as that of a revision."""
    for file in (CONFIG, ADAPTER_CONFIG):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent.name  # snapshots/<commit>/<file>
    return None


def look_for(opts: ModelOptions, name: str, revision: str | None) -> None:
    """Raise if a plain name is of no model, before processes are started to load it.

    A name with a slash may be of a folder that their machines alone have, so it is not asked for.
    Where this machine gets no answer, theirs may: they find out.

    Args:
        opts: with the models to make.
        name: as `SessionConfig.model`.
        revision: a branch, tag or commit on the hub.

    Raises:
        NotFound: the hub has no such model.
    """
    if name in opts.models or "/" in name or name.startswith((".", "~")):
        return
    with translated(name, revision, opts.models):
        try:
            if not Path(name).is_dir() and _cached_commit(name, revision) is None:
                get_hf_file_metadata(hf_hub_url(name, CONFIG, revision=revision))
        except MISSING:
            raise
        except hub_errors.HfHubHTTPError:  # the hub is busy or refuses, or it is an adapter
            return
        except Exception as error:
            if not is_unreachable(error):
                raise
