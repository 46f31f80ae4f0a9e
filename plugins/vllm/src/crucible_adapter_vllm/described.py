"""What is known of a model before an engine has its weights: configuration, tokenizer, ends."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_kitchen import InvalidInput, NotFound, Unsupported, end_of_turn, expand_home

from .failures import translated
from .tokenizer import HuggingFaceTokenizer

if TYPE_CHECKING:
    from torch import Tensor

LIVE = "torch-live:"
"""What the references of weights begin with that `training_client.torch` publishes."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_INCIDENTAL = frozenset(
    {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
)
"""Fields of a configuration that do not decide whether one model's weights fit another's."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model by name.

    Args:
        name: a folder, a repository of the hub, or a reference of live weights.
        revision: of a repository.
        config: its Transformers configuration.
        hf_tokenizer: its Transformers tokenizer; None if it has none.
        dtype: the precision in which its trainer computes; None if it has none.
        ends: the tokens that it comes with as ends of an answer.
        live: its weights, if they are in this process.
    """

    name: str
    revision: str | None
    config: Any
    hf_tokenizer: Any
    dtype: str | None
    ends: tuple[int, ...]
    live: Any = None

    @functools.cached_property
    def vocab_size(self) -> int:
        return int(self.config.get_text_config().vocab_size)

    @functools.cached_property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """The tokenizer.

        Raises:
            Unsupported: the model has none.
        """
        if self.hf_tokenizer is None:
            raise Unsupported(
                f"model {self.name!r} has no tokenizer files, so it reads and writes token ids "
                "only; to use text, put the tokenizer's files next to the weights"
            )
        context = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return HuggingFaceTokenizer(self.hf_tokenizer, context, self.vocab_size)

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer: those that the model comes with, the tokenizer's end
        token, and what ends a turn in its chat template, which is what training teaches.
        """
        known: list[int | None] = [*self.ends]
        if self.hf_tokenizer is not None and self.live is None:  # of live ones, these are known
            known += [self.tokenizer.eos_token_id, end_of_turn(self.tokenizer)]
        return tuple(dict.fromkeys(token for token in known if token is not None))

    @functools.cached_property
    def kind(self) -> str:
        """Equal for models of which an engine can take the weights of one for those of another."""
        described = {
            key: value for key, value in self.config.to_dict().items() if key not in _INCIDENTAL
        }
        text = json.dumps(described, sort_keys=True, default=str)
        return _digest(text + _vocabulary(self.hf_tokenizer))

    def weights(self) -> Iterable[tuple[str, Tensor]] | None:
        """Return all weights by their names in a checkpoint; None if vLLM has to find them."""
        if self.live is not None:
            return self.live.weights()  # type: ignore[no-any-return]
        files = _weight_files(Path(self.name))
        return _read(files) if files else None

    @contextlib.contextmanager
    def written(self) -> Iterator[str]:
        """Yield a name by which an engine finds the configuration and the tokenizer: of a live
        model a folder that is gone afterwards.
        """
        if self.live is None:
            yield self.name
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="crucible-vllm-") as folder:
            config = copy.deepcopy(self.config)
            # Transformers sets it when it saves a model; without it, vLLM has to guess.
            config.architectures = [type(self.live.model).__name__]
            config.save_pretrained(folder)
            if self.hf_tokenizer is not None:
                self.hf_tokenizer.save_pretrained(folder)
            yield folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@functools.lru_cache(maxsize=4)
def _vocabulary(hf_tokenizer: Any) -> str:
    """Return what tells a tokenizer from others. Kept, since large ones take 0.1 s and more, and
    live weights of a session, which come at every step, share theirs.
    """
    backend = getattr(hf_tokenizer, "backend_tokenizer", None)
    return _digest(backend.to_str() if backend is not None else repr(hf_tokenizer))


def describe(name: str, revision: str | None, trust_remote_code: bool) -> Model:
    """Return what is known of a model.

    Raises:
        NotFound: there is no such model, or its live weights have been replaced.
        Unsupported: an adapter of PEFT, or a revision of what has none.
        InvalidInput, Unauthorized, Unavailable: its files cannot be read, or not be fetched.
    """
    if name.startswith(LIVE):
        return _live(name)
    name = str(expand_home(name)) if name.startswith("~") else name
    if Path(name).is_dir() and revision is not None:
        raise Unsupported(f"model {name!r} is a folder, so it has no revision {revision!r}")
    if (name.startswith((".", "/")) or "://" in name) and not Path(name).is_dir():
        raise NotFound(f"there is no folder {name!r}, and no repository of a hub is called that")
    with translated(name):
        _reach(name, revision)
        return _stored(name, revision, trust_remote_code)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold a model's weights, as Transformers writes them."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

    whole, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted({*names})]


def _read(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is not a mapping
                yield name, tensors.get_tensor(name)


def _live(reference: str) -> Model:
    # Nothing was published in this process unless the package was imported.
    if "crucible_adapter_torch" not in sys.modules:
        raise NotFound(f"no weights {reference!r}: no training client of this process has any")
    from crucible_adapter_torch import published

    found = published.find(reference)
    return Model(
        name=reference,
        revision=None,
        config=found.model.config,
        hf_tokenizer=found.tokenizer,
        dtype=str(found.dtype).removeprefix("torch."),
        ends=found.end_tokens,
        live=found,
    )


def _reach(name: str, revision: str | None) -> None:
    """Raise at once if the hub cannot be reached and the cache has nothing.

    The library itself would ask again for 23 s, which is for the caller to decide; see `retry`.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if Path(name).is_dir() or try_to_load_from_cache(name, "config.json", revision=revision):
        return
    with contextlib.suppress(errors.HfHubHTTPError):  # an answer; later calls interpret it
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision))


def _stored(name: str, revision: str | None, trust_remote_code: bool) -> Model:
    from transformers import AutoConfig, GenerationConfig
    from transformers.utils import cached_file

    def has(file: str) -> bool:
        found = cached_file(
            name, file, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        return found is not None

    if has("adapter_config.json"):
        raise Unsupported(
            f"{name!r} is an adapter of PEFT; export the run as a merged model "
            "(`crucible export RUN --to FOLDER`), and name that folder"
        )
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(name, **source)
    end = None
    if has("generation_config.json"):
        end = GenerationConfig.from_pretrained(name, revision=revision).eos_token_id
    end = end if end is not None else config.get_text_config().eos_token_id
    tokenizer = None
    if any(has(file) for file in _TOKENIZER_FILES):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name, **source)
    if not isinstance(config.get_text_config().vocab_size, int):
        raise InvalidInput(f"model {name!r} is not a language model: it has no vocabulary")
    return Model(
        name=name,
        revision=revision,
        config=config,
        hf_tokenizer=tokenizer,
        dtype=None,
        ends=() if end is None else (end,) if isinstance(end, int) else (*end,),
    )
