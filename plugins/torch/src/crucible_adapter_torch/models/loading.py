"""Language models by name: made here with random weights, or loaded from a folder or the hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from crucible_kitchen import InvalidInput, NotFound, Unsupported, expand_home
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash

from ..devices import choose_device, choose_dtype
from ..options import ModelOptions
from . import causality, frozen, layers, weights
from .decoders import decoder_of
from .failures import is_unreachable, model_called, translated
from .files import find_file
from .language_model import LanguageModel
from .presence import ADAPTER_CONFIG, Place, place_of
from .quiet import quiet
from .random_models import configured, make_model, make_tokenizer
from .tokenizer import HuggingFaceTokenizer

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = ("tokenizer.json", TOKENIZER_CONFIG, "tokenizer.model")
TOKENIZER_EXTRAS = ("added_tokens.json", "special_tokens_map.json", "chat_template.jinja")
"""Files that many tokenizers do not have."""


def load(
    opts: ModelOptions,
    name: str,
    *,
    revision: str | None = None,
    seed: int = 0,
    precise: bool = False,
    keep_adapter: bool = False,
    storage: frozen.Storage | None = None,
    attention: str = "auto",
) -> LanguageModel:
    """Make or load a model, in evaluation mode, and check that it is causal.

    Args:
        opts: where to compute, and the models to make here.
        name: one of `opts.models`, a local folder, or a repository of the hub. A folder of a PEFT
            adapter is its base model with the adapter merged.
        revision: a branch, tag or commit on the hub.
        seed: of the random weights of a model that is made here.
        precise: keep the weights in float32 whatever `opts.dtype` is, as training needs.
        keep_adapter: return the low-rank updates of an adapter separately rather than merged.
        storage: freeze the weights, and keep them so; see `frozen`.
        attention: see `layers.use_attention`.

    Raises:
        NotFound: no such model, revision or architecture, or no base model of an adapter.
        InvalidInput: a size that the architecture does not know or refuses; no such device; code
            that comes with the model and was not allowed; weights that do not fit.
        Unauthorized: the hub refuses access.
        Unavailable: the hub cannot be reached.
        Unsupported: a revision of a model that has none; a model that is not a causal language
            model; an adapter that cannot be merged; a storage or an attention that needs a package
            which is not installed.
    """
    device = choose_device(opts.device)
    dtype = choose_dtype(opts.dtype, device)
    precision = torch.float32 if precise else dtype
    if storage is not None:
        precision = frozen.precision_of(storage)
    made_here = name in opts.models
    name = name if made_here else _with_home(name)
    if revision is not None and (made_here or Path(name).is_dir()):
        raise Unsupported(f"model {name!r} is not on a hub, so it has no revision {revision!r}")
    if made_here:
        wanted = opts.models[name]
        tokenizer = make_tokenizer(name, wanted)
        model = make_model(name, wanted, seed)
        loaded = _Loaded(model if storage else model.to(precision), tokenizer)
    else:
        _check_name(name)
        with quiet():
            loaded = _load(opts, name, revision, precision, keep_adapter, storage is not None)
    layers.use_attention(loaded.model, attention)
    if storage is not None:
        frozen.freeze(loaded.model, storage, dtype, device)
    language = LanguageModel(
        name=name,
        model=loaded.model.to(device).eval(),
        tokenizer=loaded.tokenizer,
        dtype=dtype,
        commit=loaded.commit,
        adapter=loaded.adapter,
        origin=loaded.origin,
    )
    causality.check(language)
    return language


def configuration(opts: ModelOptions, name: str, revision: str | None = None) -> Any:
    """Return the Transformers configuration of a model, or of the base model of an adapter, without
    its weights.

    Raises:
        NotFound, InvalidInput, Unauthorized, Unavailable, Unsupported: see `load`.
    """
    if name in opts.models:
        return configured(name, opts.models[name])
    name = _with_home(name)
    _check_name(name)
    with quiet(), translated(name, revision, opts.models):
        at = place_of(name, revision)
        described = find_file(name, ADAPTER_CONFIG, at, certain=False)
        if described is None or weights.is_whole(name, at):
            return decoder_of(AutoConfig.from_pretrained(name, **_source(opts, at)), name)
        adapter = weights.read_adapter(name, at)
    return configuration(opts, adapter.base, adapter.base_revision)


def fingerprint(opts: ModelOptions, name: str) -> str | None:
    """Identify what a model computes with its weights; None if its commit identifies it.

    A digest of what the user or the model's author wrote: Transformers adds to that with each
    version.
    """
    if name in opts.models:
        written = opts.models[name].model_dump(
            mode="json", exclude={"chat_template"}, exclude_defaults=True
        )
        content = json.dumps(written, sort_keys=True).encode()
    else:
        files = (Path(name, file) for file in (CONFIG_NAME, ADAPTER_CONFIG))
        if (file := next(filter(Path.is_file, files), None)) is None:
            return None
        content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class _Loaded:
    model: Any
    tokenizer: HuggingFaceTokenizer | None
    commit: str | None = None
    adapter: weights.Adapter | None = None
    origin: tuple[str, str | None] | None = None


def _load(
    opts: ModelOptions,
    name: str,
    revision: str | None,
    dtype: torch.dtype,
    keep_adapter: bool,
    exact: bool = False,
) -> _Loaded:
    """Load a model of a folder or the hub; if `exact`, an adapter is merged in float32."""
    with translated(name, revision, opts.models):
        at = place_of(name, revision)
        # All files come from one commit, even if the branch moves meanwhile.
        described = find_file(name, ADAPTER_CONFIG, at, certain=False)
        commit = extract_commit_hash(described, None)
        at["revision"] = commit or at["revision"]
        if described is None or weights.is_whole(name, at):
            commit = extract_commit_hash(cached_file(name, CONFIG_NAME, **at), None)
            at["revision"] = commit or at["revision"]
            if described is not None:
                raise InvalidInput(
                    f"{model_called(name, revision)} holds a whole model and an adapter "
                    f"({ADAPTER_CONFIG}): remove one of them, or name a folder that holds "
                    "one"
                )
            source = _source(opts, at)
            config = decoder_of(AutoConfig.from_pretrained(name, **source), name)
            weights.check_files(name, at)
            tokenizer = _tokenizer(name, config, opts, at)
            origin = str(Path(name).absolute()) if Path(name).is_dir() else name, commit
            model = weights.load(name, config, dtype, source)
            return _Loaded(model, tokenizer, commit, origin=origin)
        adapter = weights.read_adapter(name, at)
    if exact and not keep_adapter:
        dtype = torch.float32
    try:
        base = _load(opts, adapter.base, adapter.base_revision, dtype, keep_adapter=False)
    except NotFound as error:
        raise NotFound(
            f"{model_called(name, revision)} is an adapter of the model {adapter.base!r} "
            f"(base_model_name_or_path in its {ADAPTER_CONFIG}), which is not there: "
            f"{error.reason}"
        ) from error
    with translated(name, revision, opts.models):
        tokenizer = _tokenizer(name, base.model.config, opts, at) or base.tokenizer
        if keep_adapter:
            return _Loaded(base.model, tokenizer, commit, adapter, base.origin)
        return _Loaded(weights.merged(base.model, adapter), tokenizer, commit)


def _source(opts: ModelOptions, at: Place) -> dict[str, Any]:
    return {**at, "trust_remote_code": opts.trust_remote_code}


def _tokenizer(
    name: str, config: Any, opts: ModelOptions, at: Place
) -> HuggingFaceTokenizer | None:
    """Return the tokenizer, or None if the model has no files of one.

    Where files are missing, Transformers makes some tokenizers empty, without a word.

    Raises:
        Unavailable: the hub is away, and the cache lacks files that the tokenizer may have.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, config=config, **_source(opts, at))
    except (OSError, ValueError) as error:
        if is_unreachable(error) or any(find_file(name, file, at) for file in TOKENIZER_FILES):
            raise
        return None
    find_file(name, TOKENIZER_CONFIG, at)  # where it is missing, special tokens are guessed
    for file in TOKENIZER_EXTRAS:
        find_file(name, file, at, certain=False)
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if special.issuperset(tokenizer.get_vocab()):
        for file in TOKENIZER_FILES:
            find_file(name, file, at)
        return None
    return HuggingFaceTokenizer(tokenizer)


def _with_home(name: str) -> str:
    """Return the name of a model with the home folder in place of a leading `~`."""
    try:
        return str(expand_home(name)) if name.startswith("~") else name
    except ValueError as error:
        raise NotFound(f"no model {name!r}: {error}") from None


def _check_name(name: str) -> None:
    """Raise `NotFound` if it can only be the name of a folder, and there is none."""
    if (name.startswith((".", "/", "~")) or "://" in name) and not Path(name).is_dir():
        raise NotFound(f"there is no folder {name!r}, and no repository of a hub is called that")
