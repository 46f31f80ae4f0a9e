"""Whether there is a model of a name, asked of the hub without PyTorch and Transformers."""

from __future__ import annotations

import contextlib
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

from ..options import ModelOptions
from .failures import MISSING, translated

CONFIG = "config.json"


def reach(name: str, revision: str | None) -> None:
    """Raise at once if the hub cannot be reached and the cache has nothing.

    The library itself would ask again for 23 s, which is for the caller to decide; see `retry`.
    """
    with contextlib.suppress(hub_errors.HfHubHTTPError):  # an answer; later calls interpret it
        _ask(name, revision)


def look_for(opts: ModelOptions, name: str, revision: str | None) -> None:
    """Raise if a plain name is of no model, before processes are started to load it.

    A name with a slash may be of a folder that their machines alone have, so it is not asked for.

    Args:
        opts: with the models to make.
        name: as `SessionConfig.model`.
        revision: a branch, tag or commit on the hub.

    Raises:
        NotFound, Unauthorized: the hub has no such model, or refuses it.
        Unavailable: the hub cannot be reached.
    """
    if name in opts.models or "/" in name or name.startswith((".", "~")):
        return
    with translated(name, revision, opts.models):
        try:
            _ask(name, revision)
        except MISSING:
            raise
        except hub_errors.EntryNotFoundError:  # of an adapter, which has another configuration
            return


def _ask(name: str, revision: str | None) -> None:
    """Ask the hub for the configuration of a model that is neither a folder nor in the cache."""
    if not Path(name).is_dir() and not try_to_load_from_cache(name, CONFIG, revision=revision):
        get_hf_file_metadata(hf_hub_url(name, CONFIG, revision=revision))
