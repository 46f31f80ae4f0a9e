"""Reading prompts and answers, one more token at a time.

A cache of keys, values and states makes this fast. Not every architecture accepts one, keeps its
state in it, or finds the beginning of a row that is padded on the left. So the model's output with
a cache, `slots` first, is compared once with its output without; where they differ, rows are read
from their beginning at each step, which is slower and gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from crucible_kitchen import IntArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from ..models.causality import distance, noise, tolerance
from ..models.context import grows, settle
from ..models.language_model import LanguageModel, Prompts
from .slots import Slots, may_have_slots


class Reader(Protocol):
    """Rows that grow, and the model's prediction after each."""

    wasteful: bool
    """Whether a row that has ended costs as much as the others."""

    def advance(self) -> Tensor:
        """Read the next tokens; return the logits after them, float32 `(B, V)`."""

    def keep(self, rows: list[int], tokens: Tensor) -> Tensor:
        """Keep these rows only, in this order; return the tokens of these."""

    def append(self, tokens: Tensor) -> None:
        """Make these, `(B,)`, the next tokens to read."""


def reader(model: LanguageModel, prompts: Sequence[IntArray]) -> Reader:
    """Return a reader, other than slots, that is right for this model and these prompts."""
    lengths = [len(prompt) for prompt in prompts]
    can = cacheable(model) if stage(model, lengths) != "mixed" else "none"
    right = can in ("slots", "any") or (can == "equal" and len({*lengths}) == 1)
    return (Cached if right else Again)(model, prompts)


def stage(model: LanguageModel, lengths: Sequence[int]) -> Literal["short", "long", "mixed"]:
    """Compare the rows with the length up to which positions are steady, see `context`.

    A reader is valid for one stage: on the way to the next, the content of a cache becomes wrong.
    """
    if model.steady is None or max(lengths) <= model.steady:
        return "short"
    return "long" if min(lengths) > model.steady and not grows(model.model) else "mixed"


class Cached:
    """Keeps what the model has read in a cache, and reads the next tokens of each row.

    Rows are padded on the left; without padding there is no mask, which is faster. Equal prompts
    are read once.
    """

    wasteful = False

    def __init__(self, model: LanguageModel, prompts: Sequence[IntArray]) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.model.config)
        self._first = True
        self._logits_to_keep = {"logits_to_keep": 1} if "logits_to_keep" in model.accepts else {}
        width = max(map(len, prompts))
        different = {prompt.tobytes(): prompt for prompt in prompts}
        number = {key: row for row, key in enumerate(different)}
        self._rows = [number[prompt.tobytes()] for prompt in prompts]
        ids = np.zeros((len(different), width), np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(different.values()):
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        self._ids = torch.from_numpy(ids).to(model.device)
        self._mask: Tensor | None = None
        self._positions: Tensor | None = None
        if not mask.all():
            self._mask = torch.from_numpy(mask).to(model.device)
            self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)

    @torch.inference_mode()
    def advance(self) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": self._ids, **self._logits_to_keep}
        model = self._model
        if self._mask is not None:
            inputs["attention_mask"] = self._mask
            if "position_ids" in model.accepts:
                inputs["position_ids"] = self._positions
        with model.lock, model.autocast():
            if self._first and model.steady is not None:
                settle(model.model)
            logits = model.model(**inputs, past_key_values=self._cache, use_cache=True).logits
        last: Tensor = logits[:, -1].float()
        if self._first and len(self._rows) > len(last):
            last = self.keep(self._rows, last)
        self._first = False
        return last

    def keep(self, rows: list[int], tokens: Tensor) -> Tensor:
        index = torch.tensor(rows, device=tokens.device)
        self._cache.batch_select_indices(index)
        if self._mask is not None and self._positions is not None:
            self._mask, self._positions = self._mask[index], self._positions[index]
        return tokens[index]

    def append(self, tokens: Tensor) -> None:
        self._ids = tokens[:, None]
        if self._mask is not None and self._positions is not None:
            ones = torch.ones_like(self._ids)
            self._mask = torch.cat([self._mask, ones], dim=1)
            # A finished row that is still computed must not leave the context.
            last = (self._model.context or 2**31) - 1
            self._positions = (self._positions[:, -1:] + 1).clamp(max=last)


def slots(model: LanguageModel, prompts: Sequence[IntArray]) -> Slots:
    """Return slots with these rows, for a few tokens more."""
    rows = Slots(model)
    rows.join(prompts, max(map(len, prompts)) + 8)
    return rows


class Again:
    """Reads rows from their beginning at each step, as in training: padded on the right."""

    wasteful = True

    def __init__(self, model: LanguageModel, prompts: Sequence[IntArray]) -> None:
        self._model = model
        self._rows = [torch.from_numpy(prompt).to(model.device) for prompt in prompts]

    @torch.inference_mode()
    def advance(self) -> Tensor:
        model, rows = self._model, self._rows
        if model.steady is not None and max(map(len, rows)) > model.steady:
            with model.lock, model.autocast():
                each = [model.logits(row[None], keep=1)[:, -1] for row in rows]
            return torch.cat(each).float()
        lengths = torch.tensor([len(row) for row in rows], device=model.device)
        ids = pad_sequence(rows, batch_first=True)
        with model.lock, model.autocast():
            logits = model.logits(ids, keep=int(lengths.max() - lengths.min()) + 1)
        # If logits were left out, they are those of the first positions.
        places = lengths - 1 - (ids.shape[1] - logits.shape[1])
        return logits[torch.arange(len(rows), device=model.device), places].float()

    def keep(self, rows: list[int], tokens: Tensor) -> Tensor:
        self._rows = [self._rows[row] for row in rows]
        return tokens[torch.tensor(rows, device=tokens.device)]

    def append(self, tokens: Tensor) -> None:
        self._rows = [
            torch.cat([row, token]) for row, token in zip(self._rows, tokens[:, None], strict=True)
        ]


def cacheable(model: LanguageModel) -> Prompts:
    """Return which prompts may be read with a cache, and remember it."""
    known = model.caching
    with known.lock:
        if known.prompts is not None:
            return known.prompts
        found = _try(model)
        if found is None:
            return "none"  # until other weights show it
        known.prompts = found
        return found


def _try(model: LanguageModel) -> Prompts | None:
    """Read rows with a cache and without. None if these weights cannot show a difference, because
    their output does not depend on earlier tokens, for example.
    """
    rng = np.random.default_rng(1)
    text = rng.integers(0, model.vocab_size, (2, 9))
    if model.context is not None and model.context < text.shape[1]:
        return "none"
    equal, other = [text[0, :6], text[1, :6]], text[1, 3:6]
    expected = [_read(Again(model, [prompt]), text[:1, 6:]) for prompt in (*equal, other)]
    forgetful = _read(Again(model, [text[0, 5:6]]), text[:1, 6:])
    influence = distance(expected[0], forgetful)
    if not noise(model) / tolerance(model) < influence < float("inf"):
        return None

    def agrees(
        prompts: list[IntArray],
        wanted: list[Tensor],
        kind: Callable[[LanguageModel, Sequence[IntArray]], Reader] = Cached,
    ) -> bool:
        try:
            following = np.repeat(text[:1, 6:], len(prompts), 0)
            got = _read(kind(model, prompts), following)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception:  # it takes no such cache, mask or positions
            return False
        apart = distance(torch.cat(wanted, 1), got)
        return apart <= max(tolerance(model) * influence, noise(model))

    unequal = [equal[0], other, equal[0]], [expected[0], expected[2], expected[0]]
    if may_have_slots(model) and agrees(*unequal, slots):
        return "slots"
    if not agrees(equal, expected[:2]):
        return "none"
    return "any" if agrees(*unequal) else "equal"


def _read(reader: Reader, following: IntArray) -> Tensor:
    """Return log probabilities `(1 + steps, B, V)`: after the prompts and after each of the tokens
    that follow, `(B, steps)`.
    """
    logits = [reader.advance()]
    tokens = torch.from_numpy(following).to(logits[0].device)
    for column in range(tokens.shape[1]):
        reader.append(reader.keep(list(range(len(tokens))), tokens[:, column]))
        logits.append(reader.advance())
    return torch.stack(logits).log_softmax(-1)
