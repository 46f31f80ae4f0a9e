"""Language models: made here with random weights, or loaded from a folder or the hub."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    NotFound,
    Unauthorized,
    Unavailable,
    Unsupported,
    expand_home,
)
from huggingface_hub import errors as hub_errors
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash
from transformers.utils import logging as transformers_logging

from . import causality, context, weights
from .byte_tokenizer import BYTES, byte_tokenizer
from .options import ModelOptions, RandomModel
from .tokenizer import HuggingFaceTokenizer

PROCESS_RNG = threading.RLock()
"""Held while PyTorch's own random generators are seeded and used: the whole process shares them."""


@dataclass(eq=False)
class Caching:
    """Which prompts a model may read with a cache; see `reading`. Snapshots of a model share it.

    Args:
        prompts: "any", those of "equal" length, or "none"; None before it was found out.
        lock: held while it is found out.
    """

    prompts: Literal["any", "equal", "none"] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model, its tokenizer, and how to run it.

    Args:
        name: what it was loaded by, for messages.
        model: the Transformers model, on its device.
        tokenizer: its tokenizer; None where its folder has none.
        dtype: the precision of a forward pass; the weights may be more precise.
        commit: the hub's commit that it was loaded from, if it came from the hub.
        adapter: low-rank updates that were loaded with it and are not merged.
        caching: what is known about its cache.
        lock: held during one forward pass by callers that share the model.
    """

    name: str
    model: Any
    tokenizer: HuggingFaceTokenizer | None
    dtype: torch.dtype
    commit: str | None = None
    adapter: weights.Adapter | None = None
    caching: Caching = field(default_factory=Caching)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def device(self) -> torch.device:
        return self.model.device  # type: ignore[no-any-return]

    @functools.cached_property
    def vocab_size(self) -> int:
        """The number of tokens that it knows: rows of the embedding, of the unembedding too."""
        sizes = [int(self.model.config.get_text_config().vocab_size)]
        for layer in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
            if isinstance(getattr(layer, "weight", None), Tensor):
                sizes.append(len(layer.weight))
        return min(sizes)

    @functools.cached_property
    def context(self) -> int | None:
        """The most tokens that the model can read, if it has a limit."""
        return context.limit(self.model)

    @functools.cached_property
    def steady(self) -> int | None:
        """Rows of more tokens than this are to be read alone; None where any may be in a batch."""
        return context.steady(self.model)

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer: those that the model comes with, the tokenizer's end
        token, and what ends a turn in its chat template, which is what training teaches.
        """
        end = getattr(self.model.generation_config, "eos_token_id", None)
        known = [] if end is None else [end] if isinstance(end, int) else [*end]
        if self.tokenizer is not None:
            known += [self.tokenizer.eos_token_id, self.tokenizer.end_of_turn]
        return tuple(dict.fromkeys(token for token in known if token is not None))

    def need_tokenizer(self) -> HuggingFaceTokenizer:
        """Return the tokenizer.

        Raises:
            Unsupported: there is none.
        """
        if self.tokenizer is None:
            raise without_tokenizer(self.name)
        return self.tokenizer

    @functools.cached_property
    def accepts(self) -> frozenset[str]:
        """The arguments of its forward pass, by name."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    def logits(self, ids: Tensor, keep: int = 0) -> Tensor:
        """Read rows from their beginning, without a cache.

        No mask is needed for rows padded on the right: in a causal model no real position sees
        what is behind it.

        Args:
            ids: token ids, `(B, T)`.
            keep: how many of the last positions are wanted; 0 is all. More may be returned.

        Returns:
            `(B, T, V)`, or less of T, its end.
        """
        inputs: dict[str, Any] = {"input_ids": ids}
        if not self.accepts.isdisjoint(("use_cache", "kwargs")):
            inputs["use_cache"] = False
        if keep and "logits_to_keep" in self.accepts:
            inputs["logits_to_keep"] = keep
        if self.steady is not None:
            context.settle(self.model)
        return self.model(**inputs).logits  # type: ignore[no-any-return]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in `dtype` inside this context."""
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def without_tokenizer(name: str) -> Unsupported:
    """Return the error where text is asked of a model that reads token ids alone."""
    return Unsupported(
        f"model {name!r} has no tokenizer files (tokenizer.json, or those that its tokenizer is "
        "made from), so it reads and writes token ids alone; to use text, put the tokenizer's "
        "files next to the weights"
    )


def load(
    opts: ModelOptions,
    name: str,
    *,
    revision: str | None = None,
    seed: int = 0,
    precise: bool = False,
    keep_adapter: bool = False,
) -> LanguageModel:
    """Make or load a model, in evaluation mode, and see that it is causal.

    Args:
        opts: where to compute, and the models to make here.
        name: one of `opts.models`, a local folder, or a repository of the hub. A folder of PEFT
            adapters is its base model with the adapter merged.
        revision: a branch, tag or commit on the hub.
        seed: of the random weights of a model that is made here.
        precise: keep the weights in float32 whatever `opts.dtype` is, as training needs.
        keep_adapter: return the low-rank updates of an adapter apart rather than merged.

    Raises:
        NotFound: no such model, revision or architecture, or no base model of an adapter.
        InvalidInput: a size that the architecture does not know or refuses; no such device; code
            that comes with the model and was not allowed; weights that do not fit.
        Unauthorized: the hub refuses access.
        Unavailable: the hub cannot be reached.
        Unsupported: a revision of a model that has none; a model that is not a causal language
            model; an adapter that cannot be merged.
    """
    device = choose_device(opts.device)
    dtype = choose_dtype(opts.dtype, device)
    precision = torch.float32 if precise else dtype
    made_here = name in opts.models
    name = name if made_here else _with_home(name)
    if revision is not None and (made_here or Path(name).is_dir()):
        raise Unsupported(f"model {name!r} is not on a hub, so it has no revision {revision!r}")
    if not made_here and _is_no_hub_name(name) and not Path(name).is_dir():
        raise NotFound(f"there is no folder {name!r}, and no repository of a hub is called that")
    if made_here:
        wanted = opts.models[name]
        tokenizer = byte_tokenizer(wanted.special_tokens, _chat_template(name, wanted))
        model = _make(name, wanted, seed).to(precision)
        loaded = _Loaded(model, HuggingFaceTokenizer(tokenizer))
    else:
        with quiet():
            loaded = _load(opts, name, revision, precision, keep_adapter)
    language = LanguageModel(
        name=name,
        model=loaded.model.to(device).eval(),
        tokenizer=loaded.tokenizer,
        dtype=dtype,
        commit=loaded.commit,
        adapter=loaded.adapter,
    )
    causality.check(language)
    return language


@dataclass(frozen=True)
class _Loaded:
    model: Any
    tokenizer: HuggingFaceTokenizer | None
    commit: str | None = None
    adapter: weights.Adapter | None = None


def _load(
    opts: ModelOptions, name: str, revision: str | None, dtype: torch.dtype, keep_adapter: bool
) -> _Loaded:
    with _explained(opts, name, revision):
        _reach(name, revision)
        # All files come from one commit, even if the branch moves meanwhile.
        optional = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
        described = cached_file(name, weights.ADAPTER_CONFIG, **optional)
        commit = extract_commit_hash(described, None)
        if described is None or weights.is_whole(name, commit or revision):
            commit = extract_commit_hash(cached_file(name, CONFIG_NAME, revision=revision), None)
            if described is not None:
                raise InvalidInput(
                    f"{_called(name, revision)} holds a whole model and an adapter "
                    f"({weights.ADAPTER_CONFIG}): remove one of them, or name a folder that holds "
                    "one"
                )
            source = _source(opts, commit or revision)
            config = _decoder_of(AutoConfig.from_pretrained(name, **source), name)
            tokenizer = _tokenizer(name, config, source)
            return _Loaded(weights.load(name, config, dtype, source), tokenizer, commit)
        adapter = weights.read_adapter(name, commit or revision)
    try:
        base = _load(opts, adapter.base, adapter.base_revision, dtype, keep_adapter=False)
    except NotFound as error:
        raise NotFound(
            f"{_called(name, revision)} is an adapter of the model {adapter.base!r} "
            f"(base_model_name_or_path in its {weights.ADAPTER_CONFIG}), which is not there: "
            f"{error.reason}"
        ) from error
    with _explained(opts, name, revision):
        source = _source(opts, commit or revision)
        tokenizer = _tokenizer(name, base.model.config, source) or base.tokenizer
        if keep_adapter:
            return _Loaded(base.model, tokenizer, commit, adapter)
        return _Loaded(weights.merged(base.model, adapter), tokenizer, commit)


def _source(opts: ModelOptions, revision: str | None) -> dict[str, Any]:
    return {"revision": revision, "trust_remote_code": opts.trust_remote_code}


@contextlib.contextmanager
def _explained(opts: ModelOptions, name: str, revision: str | None) -> Iterator[None]:
    """Turn what Transformers, and the libraries below it, raise into what the contract says."""
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        # Most is an OSError or a ValueError; what a cut connection raises is neither.
        if not isinstance(error, OSError | ValueError) and not _unreachable(_chain(error)):
            raise
        raise _explain(error, opts, name, revision) from error


def _reach(name: str, revision: str | None) -> None:
    """Raise at once where the hub is away and nothing is in the cache.

    The library itself asks again for 23 s, which is for the caller to decide; see `retry`.
    """
    if Path(name).is_dir() or try_to_load_from_cache(name, CONFIG_NAME, revision=revision):
        return
    with contextlib.suppress(hub_errors.HfHubHTTPError):  # an answer; what it means is seen later
        get_hf_file_metadata(hf_hub_url(name, CONFIG_NAME, revision=revision))


def _tokenizer(name: str, config: Any, source: Mapping[str, Any]) -> HuggingFaceTokenizer | None:
    """Return the tokenizer, or None where there are no files of one.

    Transformers makes an empty tokenizer, without a word, where the files of some are missing.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, config=config, **source)
    except (OSError, ValueError) as error:
        known = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
        optional = {"_raise_exceptions_for_missing_entries": False}
        if _unreachable(_chain(error)) or any(
            cached_file(name, file, revision=source["revision"], **optional) for file in known
        ):
            raise
        return None
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if special.issuperset(tokenizer.get_vocab()):
        return None
    return HuggingFaceTokenizer(tokenizer)


def _decoder_of(config: Any, name: str) -> Any:
    """Ask an architecture that can look both ways to look back alone.

    Whether it does is seen later, see `causality`: not all that have the switch obey it.

    Raises:
        Unsupported: it is an encoder-decoder, or no language model at all.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise Unsupported(
            f"model {name!r} is an encoder-decoder ({config.model_type}), which is trained on "
            "pairs of sequences; this adapter trains and samples decoders"
        )
    return _looking_back(config, name)


def _looking_back(config: Any, name: str) -> Any:
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not remote:
        raise Unsupported(
            f"model {name!r} is a {config.model_type}, of which Transformers has no causal "
            "language model"
        )
    for switch, value in (("is_decoder", True), ("causal", True), ("attn_type", "uni")):
        if hasattr(config, switch) and (switch != "attn_type" or config.attn_type == "bi"):
            setattr(config, switch, value)
    return config


def _with_home(name: str) -> str:
    """Return the name of a model with the home folder in place of a leading `~`."""
    try:
        return str(expand_home(name)) if name.startswith("~") else name
    except ValueError as error:
        raise NotFound(f"no model {name!r}: {error}") from None


def _is_no_hub_name(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "://" in name


def choose_device(name: str) -> torch.device:
    """Return the device of this name; see `ModelOptions.device`."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        reason = str(error).split("\n")[0].split(" device type at start")[0]
        raise InvalidInput(
            f"no device {name!r} here; there is {', '.join(_devices())}, and auto takes "
            f"{choose_device('auto')} ({reason})"
        ) from error
    return device


def _devices() -> list[str]:
    """Return the names of the devices of this machine."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of this name on the device; see `ModelOptions.dtype`."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars, reports and retries out of the caller's terminal.

    What is wrong is raised instead.
    """
    bars = transformers_logging.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def use_threads(count: int) -> None:
    """Set the number of CPU threads: per thread for OpenMP, for the process otherwise."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _make(name: str, sizes: RandomModel, seed: int) -> Any:
    config = _looking_back(_configuration(name, sizes), name)
    with PROCESS_RNG, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # what the configuration's own checks do not see
            raise InvalidInput(
                f"models.{name}: no {config.model_type} can be made of these sizes: "
                f"{type(error).__name__}: {error}"
            ) from error


def _configuration(name: str, wanted: RandomModel) -> Any:
    where = f"models.{name}"
    if wanted.model_type not in CONFIG_MAPPING:
        near = _nearest(wanted.model_type, list(CONFIG_MAPPING))
        raise NotFound(f"{where}: Transformers knows no model_type {wanted.model_type!r}{near}")
    kind = CONFIG_MAPPING[wanted.model_type]
    # An alias (`hidden_size` of GPT-2 is `n_embd`) is known, too.
    known = {*kind.__dataclass_fields__, *kind.attribute_map}
    for key in wanted.sizes:
        if key not in known:
            near = _nearest(key, sorted(known))
            raise InvalidInput(f"{where}: a {wanted.model_type} has no {key!r}{near}")
    tokens = BYTES + len(wanted.special_tokens)
    sizes = {"vocab_size": tokens, **wanted.sizes}
    end = {token: tokens - 1 for token in ("bos_token_id", "eos_token_id") if token in known}
    if sizes["vocab_size"] < tokens:
        raise InvalidInput(
            f"{where}: vocab_size is {sizes['vocab_size']}, but the tokens are the bytes and "
            f"{', '.join(wanted.special_tokens)}, {tokens} in all"
        )
    try:
        return kind(**{**end, "pad_token_id": None, **sizes})
    except Exception as error:  # each architecture has checks, and exceptions, of its own
        raise InvalidInput(f"{where}: {error.__cause__ or error}") from error


def _chat_template(name: str, wanted: RandomModel) -> str | None:
    path = wanted.chat_template
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise NotFound(f"models.{name}.chat_template: {path} cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"models.{name}.chat_template: {path} is not UTF-8: {error}") from error


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _explain(error: Exception, opts: ModelOptions, name: str, revision: str | None) -> AdapterError:
    """Say what is wrong with a model that Transformers could not load.

    It raises OSError for nearly everything; the reason is somewhere in the chain of causes.
    """
    chain = _chain(error)
    model = _called(name, revision)
    reason = str(error).strip().split("\n")[0]

    def raised(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    codes = [getattr(getattr(link, "response", None), "status_code", 0) for link in chain]
    refused = 401 in codes or 403 in codes
    busy = 429 in codes or max(codes) >= 500
    missing = (
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
        hub_errors.HFValidationError,
    )
    # The hub answers 401 for a repository that does not exist, too: only "gated" is certain.
    if raised(hub_errors.GatedRepoError) or (refused and not raised(*missing)):
        return Unauthorized(f"the hub refuses {model}; accept its terms and log in: {reason}")
    if not raised(*missing) and not Path(name).is_dir() and (busy or _unreachable(chain)):
        return Unavailable(f"the hub cannot be reached for {model}: {reason}")
    if "trust_remote_code" in str(error):
        return InvalidInput(
            f"{model} comes with Python code of its own; read it, then allow it with "
            "trust_remote_code = true"
        )
    near = _nearest(name, list(opts.models))
    made = f" (made here: {', '.join(opts.models)})" if opts.models else ""
    return NotFound(f"no {model}{made}{near or ':'} {reason}")


def _called(name: str, revision: str | None) -> str:
    return f"model {name!r}" + (f" at {revision!r}" if revision else "")


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error, what caused it, what caused that, and so on."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _unreachable(chain: list[BaseException]) -> bool:
    offline = (
        hub_errors.LocalEntryNotFoundError,
        hub_errors.OfflineModeIsEnabled,
        ConnectionError,
        TimeoutError,
    )
    # By its name, since the Hub's client has changed its HTTP library before.
    return any(
        isinstance(link, offline)
        or "TransportError" in [cls.__name__ for cls in type(link).__mro__]
        for link in chain
    ) or "couldn't connect" in str(chain[0])
