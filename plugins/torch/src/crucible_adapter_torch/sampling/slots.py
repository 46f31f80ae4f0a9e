"""A cache of keys and values with a slot for each row: rows come and go while others are read.

A row's tokens stand at the beginning of its slot, so that a shorter row needs no padding, its next
key is written in place, and a row that ends leaves nothing behind but a free slot. Prompts are read
without their last token, which is the first one that all rows read together; so a prompt that
several rows share is read once, and its keys are copied.

This takes attention to everything before, in every layer, by a mask and positions that are given;
`reading` finds out which models obey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from crucible_kitchen import IntArray
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..models.language_model import LanguageModel
from ..passes.batches import plan

READ_TOKENS = 2048
"""The most prompt tokens, padding included, that are read at a time: enough for large matrices, and
few enough that prompts of one piece have similar lengths."""


def may_have_slots(model: LanguageModel) -> bool:
    """Whether all that the model keeps of what it has read are keys and values of every token. A
    sliding window is none if the context fits into it.
    """
    if model.steady is not None or "position_ids" not in model.accepts:
        return False
    try:
        layers = DynamicCache(config=model.model.config).layers
    except Exception:  # a configuration that the cache cannot read
        return False
    return all(
        type(layer) is DynamicLayer
        or (
            type(layer) is DynamicSlidingWindowLayer
            and model.context is not None
            and model.context <= layer.sliding_window
        )
        for layer in layers
    )


class Slots:
    """Rows that are read together, one more token of each at a time.

    Args:
        model: which must pass `may_have_slots`.
    """

    wasteful = True

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._places = _Places()
        layers = len(DynamicCache(config=model.model.config).layers)
        self._cache = Cache(layers=[_Layer(self._places) for _ in range(layers)])
        self._layers: list[_Layer] = self._cache.layers
        self._logits_to_keep = {"logits_to_keep": 1} if "logits_to_keep" in model.accepts else {}
        self._heads: list[bytes] = []
        self._lengths = np.zeros(0, np.int64)
        self._next = torch.zeros(0, dtype=torch.int64, device=model.device)

    @torch.inference_mode()
    def join(self, prompts: Sequence[IntArray], width: int) -> None:
        """Add rows behind the others.

        Args:
            prompts: token ids of each, `(n,)`.
            width: the most tokens that any row, old or new, will have.
        """
        old = len(self._heads)
        heads = [prompt[:-1] for prompt in prompts]
        keys = [head.tobytes() for head in heads]
        self._reserve(old + len(prompts), width)
        known = {key: row for row, key in enumerate(self._heads)}
        rows: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys, start=old):
            rows.setdefault(key, []).append(row)
        unread = [heads[rows[key][0] - old] for key in rows if key and key not in known]
        for piece in plan(np.array([len(head) for head in unread]), READ_TOKENS):
            together = [unread[index] for index in piece]
            self._read(together, [rows[head.tobytes()] for head in together])
        for key in rows.keys() & known.keys():
            if key:
                self._copy([known[key]] * len(rows[key]), rows[key])
        self._heads += keys
        self._lengths = np.concatenate([self._lengths, [len(head) for head in heads]])
        last = torch.tensor([int(prompt[-1]) for prompt in prompts], device=self._next.device)
        self._next = torch.cat([self._next, last])

    @torch.inference_mode()
    def advance(self) -> Tensor:
        """Read the next token of each row; return the logits after them, float32 `(B, V)`."""
        lengths = torch.from_numpy(self._lengths).to(self._next.device)
        width = int(self._lengths.max()) + 1
        self._places.step(lengths, width)
        mask = torch.arange(width, device=lengths.device) <= lengths[:, None]
        logits = self._run(
            self._next[:, None], attention_mask=mask.long(), position_ids=lengths[:, None]
        )
        self._lengths += 1
        return logits[:, -1].float()

    @torch.inference_mode()
    def keep(self, rows: list[int], tokens: Tensor) -> Tensor:
        """Keep these rows, in this order; return the tokens of these."""
        moved = [(new, old) for new, old in enumerate(rows) if new != old]
        if moved:
            self._copy([old for _, old in moved], [new for new, _ in moved])
        for layer in self._layers:
            layer.clear(slice(len(rows), len(self._heads)))
        self._heads = [self._heads[row] for row in rows]
        self._lengths = self._lengths[rows]
        return tokens[torch.tensor(rows, dtype=torch.int64, device=tokens.device)]

    def append(self, tokens: Tensor) -> None:
        self._next = tokens

    def _read(self, heads: Sequence[IntArray], rows: Sequence[Sequence[int]]) -> None:
        """Read prompts, and put what is kept of each into the slots of some rows."""
        width = max(map(len, heads))
        # A row is padded with its own token: what it keeps of that cannot be another's NaN.
        ids = np.stack([np.pad(head, (0, width - len(head)), "edge") for head in heads])
        device = self._next.device
        source = torch.tensor([index for index, each in enumerate(rows) for _ in each])
        into = torch.tensor([row for each in rows for row in each])
        self._places.read(source.to(device), into.to(device), width)
        # Causal rows padded on the right need no mask, as in training.
        self._run(torch.from_numpy(ids).to(device))

    def _run(self, ids: Tensor, **inputs: Any) -> Tensor:
        model = self._model
        with model.lock, model.autocast():
            return model.model(  # type: ignore[no-any-return]
                input_ids=ids,
                past_key_values=self._cache,
                use_cache=True,
                **self._logits_to_keep,
                **inputs,
            ).logits

    def _reserve(self, rows: int, width: int) -> None:
        if rows > self._places.rows or width > self._places.width:
            self._places.rows, self._places.width = rows, width
            for layer in self._layers:
                layer.resize(len(self._heads))

    def _copy(self, sources: list[int], rows: list[int]) -> None:
        for layer in self._layers:
            layer.copy(sources, rows)


class _Places:
    """Where the keys of the next pass belong; the same in every layer."""

    def __init__(self) -> None:
        self.rows = self.width = 0
        self.seen = 0
        self.visible = 0
        self._source: Tensor | None = None
        self._into = self._columns = torch.zeros(0, dtype=torch.int64)

    def read(self, source: Tensor, into: Tensor, width: int) -> None:
        """Rows from their beginning: that of number `source[i]` belongs into the slot `into[i]`."""
        self._source, self._into, self.seen, self.visible = source, into, 0, width

    def step(self, columns: Tensor, width: int) -> None:
        """A token for each row, of which the longest then has `width`."""
        self._source, self._columns, self.seen, self.visible = None, columns, width - 1, width
        self._into = torch.arange(len(columns), device=columns.device)

    def put(self, new: Tensor, slots: Tensor) -> Tensor:
        """Write what is new; return all that may be attended to."""
        if self._source is not None:
            slots[self._into, :, : self.visible] = new[self._source]
            return new
        slots[self._into, :, self._columns] = new[:, :, 0]
        return slots[: len(new), :, : self.visible]


class _Layer(DynamicLayer):  # type: ignore[misc]
    """The slots of a layer, keys and values `(rows, heads, width, size)`. A free slot is zero:
    what is masked must be finite.
    """

    keys: Tensor | None
    values: Tensor | None

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self._places = places

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.values is None:
            self.is_initialized = True
            self.keys, self.values = self._empty(key_states), self._empty(value_states)
        return self._places.put(key_states, self.keys), self._places.put(value_states, self.values)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._places.visible, 0

    def get_seq_length(self) -> int:
        return self._places.seen

    def resize(self, used: int) -> None:
        """Take over the size of the places, with what the first `used` slots hold."""
        if self.keys is None or self.values is None:
            return
        for name, old in (("keys", self.keys), ("values", self.values)):
            new, width = self._empty(old), min(old.shape[2], self._places.width)
            new[:used, :, :width] = old[:used, :, :width]
            setattr(self, name, new)

    def copy(self, sources: list[int], rows: list[int]) -> None:
        for slots in (self.keys, self.values):
            if slots is not None:
                slots[rows] = slots[sources]

    def clear(self, rows: slice) -> None:
        for slots in (self.keys, self.values):
            if slots is not None:
                slots[rows] = 0

    def _empty(self, like: Tensor) -> Tensor:
        places = self._places
        return like.new_zeros((places.rows, like.shape[1], places.width, like.shape[3]))
