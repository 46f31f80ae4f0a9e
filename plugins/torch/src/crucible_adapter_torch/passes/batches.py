"""Sequences of any lengths become rectangular pieces that fit into memory.

The plan is a function of the sequences and the budget alone, so the same batch is always computed
the same way: a resumed run repeats it to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from crucible_kitchen import (
    Datum,
    EncodedTextChunk,
    FloatArray,
    IntArray,
    ModelInput,
    Unsupported,
)
from numpy.typing import NDArray

OVERHEAD = 128
"""What a piece costs besides its tokens, in tokens: the calls of each layer, and gradients that are
added to those there are. 32 rows of GSM8K, 5,256 tokens, take 5,604 with their padding; cut where a
piece is full, they took 7,512."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some rows of a batch, padded on the right to one length.

    A target counts unless all its loss inputs are 0: such a one adds to no loss and no gradient.

    Args:
        rows: `(B,)`, which sequences of the batch these are.
        lengths: `(B,)`, their tokens, not increasing.
        input_ids: int64 `(B, T)`, zeros in the padding.
        places: `(k,)`, the positions in `input_ids`, flattened, whose targets count; None if all.
        targets: int64 `(k,)`, the token to predict after each of these.
        loss_inputs: float32 `(k,)` each.
    """

    rows: IntArray
    lengths: IntArray
    input_ids: IntArray
    places: IntArray | None
    targets: IntArray
    loss_inputs: Mapping[str, FloatArray] = field(default_factory=dict)


def datum_pieces(
    datums: Sequence[Datum], loss_inputs: Sequence[str], budget: int, steady: int | None = None
) -> list[Piece]:
    """Copy validated datums into pieces of at most `budget` padded tokens, one row at least.

    Missing loss inputs are ones. Rows of more than `steady` tokens are alone, see `context`.

    Raises:
        Unsupported: a datum holds an image.
    """
    inputs = [token_array(datum.model_input) for datum in datums]
    targets = [datum.loss_fn_inputs["target_tokens"] for datum in datums]
    extra = {
        name: [
            datum.loss_fn_inputs[name]
            if name in datum.loss_fn_inputs
            else np.ones(len(tokens), np.float32)
            for datum, tokens in zip(datums, inputs, strict=True)
        ]
        for name in loss_inputs
    }
    return pieces(inputs, targets, budget, extra, steady)


def idle_piece(loss_inputs: Sequence[str]) -> Piece:
    """Return a piece of one token and no target: passes over it give no loss and add zeros to the
    gradient.
    """
    none = np.empty(0, np.int64)
    inputs = {name: np.empty(0, np.float32) for name in loss_inputs}
    return Piece(none, np.ones(1, np.int64), np.zeros((1, 1), np.int64), none, none, inputs)


def token_array(model_input: ModelInput) -> IntArray:
    """Return the token ids, `(N,)`. May share memory with the input.

    Raises:
        Unsupported: it holds an image.
    """
    parts = []
    for chunk in model_input.chunks:
        if not isinstance(chunk, EncodedTextChunk):
            raise Unsupported("this adapter reads text only, not images")
        parts.append(chunk.tokens)
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])


def pieces(
    inputs: Sequence[IntArray],
    targets: Sequence[IntArray],
    budget: int,
    loss_inputs: Mapping[str, Sequence[FloatArray]] | None = None,
    steady: int | None = None,
) -> list[Piece]:
    """Cut sequences and their targets, of the same lengths, into pieces; see `datum_pieces`."""
    lengths = np.array([len(tokens) for tokens in inputs])
    return [
        _piece(rows, lengths[rows], inputs, targets, loss_inputs or {})
        for rows in plan(lengths, budget, steady)
    ]


def plan(
    lengths: IntArray, budget: int, steady: int | None = None, overhead: int = OVERHEAD
) -> list[IntArray]:
    """Group rows of similar lengths, the longest first, so that padding and pieces cost least.

    Args:
        lengths: `(n,)`, tokens of each row.
        budget: the most tokens of a piece, padding included; a longer row is alone.
        steady: rows of more tokens than this are alone.
        overhead: what a piece costs in addition to its tokens, in tokens.

    Returns:
        The indices of each group's rows.
    """
    count = len(lengths)
    if steady is None and (lengths == lengths[:1]).all() and lengths.sum() <= budget:
        # The same as below, found in a tenth of the time.
        return [np.arange(count)] if count else []
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order]
    # A piece ends where rows get shorter, or where it is full; elsewhere it is hardly ever better.
    ends = np.append(np.flatnonzero(np.diff(sizes)) + 1, len(sizes))
    cost = np.full(len(sizes) + 1, np.inf)
    cost[0] = 0
    before = np.zeros(len(sizes) + 1, np.int64)
    for start, longest in enumerate(sizes.tolist()):
        if cost[start] == np.inf:
            continue
        alone = steady is not None and longest > steady
        full = start + (1 if alone else max(1, budget // longest))
        stops = np.append(ends[(ends > start) & (ends < full)], min(full, len(sizes)))
        costs = cost[start] + (stops - start) * longest + overhead
        better = costs < cost[stops]
        cost[stops[better]], before[stops[better]] = costs[better], start
    groups, stop = [], len(sizes)
    while stop:
        groups.append(order[before[stop] : stop])
        stop = int(before[stop])
    return groups[::-1]


def by_row(batch: Sequence[Piece], flat: Sequence[FloatArray]) -> list[FloatArray]:
    """Undo the cutting: values `(k,)` of each piece become one array per sequence, in order, with 0
    where a target does not count.
    """
    rows: dict[int, FloatArray] = {}
    for piece, values in zip(batch, flat, strict=True):
        table = values
        if piece.places is not None:
            table = np.zeros(piece.input_ids.size, values.dtype)
            table[piece.places] = values
        table = table.reshape(piece.input_ids.shape)
        pairs = zip(table, piece.lengths.tolist(), strict=True)
        each = [row[:length] for row, length in pairs]
        rows.update(zip(piece.rows.tolist(), each, strict=True))
    return [rows[index] for index in range(len(rows))]


def _piece(
    rows: IntArray,
    lengths: IntArray,
    inputs: Sequence[IntArray],
    targets: Sequence[IntArray],
    loss_inputs: Mapping[str, Sequence[FloatArray]],
) -> Piece:
    # np.concatenate copies, so that the caller may reuse the arrays at once.
    chosen, width = rows.tolist(), int(lengths[0])
    tokens = np.concatenate([inputs[row] for row in chosen])
    wanted = np.concatenate([targets[row] for row in chosen]).astype(np.int64, copy=False)
    extra = {
        name: np.concatenate([arrays[row] for row in chosen]).astype(np.float32, copy=False)
        for name, arrays in loss_inputs.items()
    }
    places = None
    if lengths[-1] == width:
        ids = tokens.reshape(len(chosen), width)
    else:
        places = np.flatnonzero(np.arange(width) < lengths[:, None])
        ids = np.zeros((len(chosen), width), np.int64)
        ids.reshape(-1)[places] = tokens
    counts = _counts(extra, len(tokens))
    if not counts.all():
        places = np.flatnonzero(counts) if places is None else places[counts]
        wanted, extra = wanted[counts], {name: values[counts] for name, values in extra.items()}
    return Piece(rows, lengths, ids, places, wanted, extra)


def _counts(loss_inputs: Mapping[str, FloatArray], length: int) -> NDArray[np.bool_]:
    counts = np.full(length, not loss_inputs)
    for values in loss_inputs.values():
        counts |= values != 0
    return counts
