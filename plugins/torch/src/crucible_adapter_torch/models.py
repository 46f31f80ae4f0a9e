"""Language models: made here with random weights, or loaded from a folder or the hub."""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    NotFound,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from huggingface_hub import errors as hub_errors
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash, logging

from .byte_tokenizer import VOCAB_SIZE, byte_tokenizer
from .options import ModelOptions, RandomModel
from .tokenizer import HuggingFaceTokenizer

PROCESS_RNG = threading.RLock()
"""Held while PyTorch's own random generators are seeded and used: the whole process shares them."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model, its tokenizer, and how to run it.

    Args:
        model: the Transformers model, on its device.
        tokenizer: its tokenizer.
        dtype: the precision of a forward pass; the weights may be more precise.
        commit: the hub's commit that it was loaded from, if it came from the hub.
        lock: held during one forward pass by callers that share the model.
    """

    model: Any
    tokenizer: HuggingFaceTokenizer
    dtype: torch.dtype
    commit: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def device(self) -> torch.device:
        return self.model.device  # type: ignore[no-any-return]

    @property
    def vocab_size(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def context(self) -> int | None:
        """The most tokens that the model can read, if it has a limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        end = getattr(self.model.generation_config, "eos_token_id", None)
        if end is None:
            end = self.tokenizer.eos_token_id
        return frozenset([] if end is None else [end] if isinstance(end, int) else end)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in `dtype` inside this context."""
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def load(
    opts: ModelOptions,
    name: str,
    *,
    revision: str | None = None,
    seed: int = 0,
    precise: bool = False,
) -> LanguageModel:
    """Make or load a model, in evaluation mode.

    Args:
        opts: where to compute, and the models to make here.
        name: one of `opts.models`, a local folder, or a repository of the hub.
        revision: a branch, tag or commit on the hub.
        seed: of the random weights of a model that is made here.
        precise: keep the weights in float32 whatever `opts.dtype` is, as training needs.

    Raises:
        NotFound: no such model, revision or architecture.
        InvalidInput: a size that the architecture does not know or refuses; no such device; code
            that comes with the model and was not allowed.
        Unauthorized: the hub refuses access.
        Unavailable: the hub cannot be reached.
        Unsupported: a revision of a model that has none.
    """
    device = choose_device(opts.device)
    dtype = choose_dtype(opts.dtype, device)
    weights = torch.float32 if precise else dtype
    made_here = name in opts.models
    if revision is not None and (made_here or Path(name).is_dir()):
        raise Unsupported(f"model {name!r} is not on a hub, so it has no revision {revision!r}")
    if not made_here and _is_no_hub_name(name) and not Path(name).is_dir():
        raise NotFound(f"there is no folder {name!r}, and no repository of a hub is called that")
    commit = None
    if made_here:
        model = _make(name, opts.models[name], seed).to(weights)
        tokenizer = byte_tokenizer()
    else:
        try:
            # All files come from one commit, even if the branch moves meanwhile.
            commit = extract_commit_hash(cached_file(name, CONFIG_NAME, revision=revision), None)
            source = {
                "revision": commit or revision,
                "trust_remote_code": opts.trust_remote_code,
            }
            tokenizer = AutoTokenizer.from_pretrained(name, **source)
            # Weights as pickles could run code; safetensors cannot.
            with no_progress_bars():
                model = AutoModelForCausalLM.from_pretrained(
                    name, dtype=weights, use_safetensors=True, **source
                )
        except Exception as error:
            # Most is an OSError or a ValueError; what a cut connection raises is neither.
            if not isinstance(error, OSError | ValueError) and not _unreachable(_chain(error)):
                raise
            raise _explain(error, opts, name, revision) from error
    return LanguageModel(
        model=model.to(device).eval(),
        tokenizer=HuggingFaceTokenizer(tokenizer),
        dtype=dtype,
        commit=commit,
    )


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
            f"no device {name!r} here; there is cpu, cuda, cuda:1, mps and auto ({reason})"
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of this name on the device; see `ModelOptions.dtype`."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep Transformers' progress bars out of the caller's terminal and logs."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def use_threads(count: int) -> None:
    """Set the number of CPU threads: per thread for OpenMP, for the process otherwise."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _make(name: str, sizes: RandomModel, seed: int) -> Any:
    config = _configuration(name, sizes)
    with PROCESS_RNG, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


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
    sizes = {"vocab_size": VOCAB_SIZE, **wanted.sizes}
    end = {token: VOCAB_SIZE - 1 for token in ("bos_token_id", "eos_token_id") if token in known}
    if sizes["vocab_size"] < VOCAB_SIZE:
        raise InvalidInput(
            f"{where}: vocab_size is {sizes['vocab_size']}, but the tokens are the bytes and the "
            f"end of text, {VOCAB_SIZE} in all"
        )
    try:
        return kind(**{**end, "pad_token_id": None, **sizes})
    except Exception as error:  # each architecture has checks, and exceptions, of its own
        raise InvalidInput(f"{where}: {error.__cause__ or error}") from error


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _explain(error: Exception, opts: ModelOptions, name: str, revision: str | None) -> AdapterError:
    """Say what is wrong with a model that Transformers could not load.

    It raises OSError for nearly everything; the reason is somewhere in the chain of causes.
    """
    chain = _chain(error)
    model = f"model {name!r}" + (f" at {revision!r}" if revision else "")
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
