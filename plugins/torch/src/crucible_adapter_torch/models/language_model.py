"""A language model: the Transformers model, its tokenizer, and how to run it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from crucible_kitchen import Unsupported
from torch import Tensor

from . import context
from .tokenizer import HuggingFaceTokenizer
from .weights import Adapter

Prompts: TypeAlias = Literal["slots", "any", "equal", "none"]
"""Which prompts a model may read with a cache: "any", those of "equal" length, or "none"; any, and
with "slots", too."""


@dataclass(eq=False)
class Caching:
    """What is known about the cache of a model; see `reading`. Snapshots of a model share it.

    Args:
        prompts: which prompts it may read with a cache; None until it was found out.
        lock: held while it is found out.
    """

    prompts: Prompts | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model, its tokenizer, and how to run it.

    Args:
        name: the name it was loaded by, for messages.
        model: the Transformers model, on its device.
        tokenizer: its tokenizer; None if its folder has none.
        dtype: the precision of a forward pass; the weights may be more precise.
        commit: the hub's commit that it was loaded from, if it came from the hub.
        adapter: low-rank updates that were loaded with it and are not merged.
        origin: the name and the commit by which any program can load the weights without the
            adapter; None if they were made here, or an adapter was merged into them.
        caching: what was found out about it.
        lock: held during one forward pass by callers that share the model.
    """

    name: str
    model: Any
    tokenizer: HuggingFaceTokenizer | None
    dtype: torch.dtype
    commit: str | None = None
    adapter: Adapter | None = None
    origin: tuple[str, str | None] | None = None
    caching: Caching = field(default_factory=Caching)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def device(self) -> torch.device:
        return self.model.device  # type: ignore[no-any-return]

    @functools.cached_property
    def vocab_size(self) -> int:
        """The number of tokens it knows: rows of the embedding and of the unembedding."""
        sizes = [int(self.model.config.get_text_config().vocab_size)]
        for layer in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
            if isinstance(getattr(layer, "weight", None), Tensor):
                sizes.append(len(layer.weight))
        return min(sizes)

    @functools.cached_property
    def context(self) -> int | None:
        """The most tokens that the model can read; None if it has no limit."""
        return context.limit(self.model)

    @functools.cached_property
    def steady(self) -> int | None:
        """Rows of more tokens than this must be read alone; None if any may be in a batch."""
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
            Unsupported: the model has none.
        """
        if self.tokenizer is None:
            raise without_tokenizer(self.name)
        return self.tokenizer

    @functools.cached_property
    def accepts(self) -> frozenset[str]:
        """The names of its forward pass's arguments."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    def logits(self, ids: Tensor, keep: int = 0) -> Tensor:
        """Read rows from their beginning, without a cache.

        No mask is needed for rows padded on the right: in a causal model no real position sees
        what is behind it.

        Args:
            ids: token ids, `(B, T)`.
            keep: how many of the last positions are wanted; 0 is all. More may be returned.

        Returns:
            `(B, T, V)`, or only the end of T.
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
    """Return the error for text where a model reads token ids only."""
    return Unsupported(
        f"model {name!r} has no tokenizer files (tokenizer.json, or those that its tokenizer is "
        "made from), so it reads and writes token ids only; to use text, put the tokenizer's "
        "files next to the weights"
    )
