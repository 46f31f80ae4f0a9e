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


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some rows of a batch, of n real tokens together, padded on the right to one length.

    Args:
        rows: `(B,)`, which sequences of the batch these are.
        input_ids: `(B, T)`, zeros in the padding.
        real: `(B, T)`, False in the padding; None if there is no padding.
        targets: `(n,)`, the token to predict after each real position, row after row.
        loss_inputs: float32 `(n,)` each.
        ends: `(B - 1,)`, where in n each row but the last ends.
    """

    rows: IntArray
    input_ids: IntArray
    real: NDArray[np.bool_] | None
    targets: IntArray
    ends: IntArray
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
            datum.loss_fn_inputs.get(name, np.ones(len(tokens), np.float32))
            for datum, tokens in zip(datums, inputs, strict=True)
        ]
        for name in loss_inputs
    }
    return pieces(inputs, targets, budget, extra, steady)


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


def plan(lengths: IntArray, budget: int, steady: int | None = None) -> list[IntArray]:
    """Group rows of similar lengths, the longest first, within a budget of padded tokens; those
    longer than `steady` alone.
    """
    order = np.argsort(-lengths, kind="stable")
    groups, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        count = 1 if steady is not None and longest > steady else max(1, budget // longest)
        groups.append(order[start : start + count])
        start += count
    return groups


def by_row(batch: Sequence[Piece], flat: Sequence[FloatArray]) -> list[FloatArray]:
    """Undo the cutting: values `(n,)` of each piece become one array per sequence, in order."""
    rows: dict[int, FloatArray] = {}
    for piece, values in zip(batch, flat, strict=True):
        rows.update(zip(piece.rows.tolist(), np.split(values, piece.ends), strict=True))
    return [rows[index] for index in range(len(rows))]


def _piece(
    rows: IntArray,
    lengths: IntArray,
    inputs: Sequence[IntArray],
    targets: Sequence[IntArray],
    loss_inputs: Mapping[str, Sequence[FloatArray]],
) -> Piece:
    # np.concatenate copies, so that the caller may reuse the arrays at once.
    tokens = np.concatenate([inputs[row] for row in rows])
    width = int(lengths[0])
    if lengths[-1] == width:
        ids, real = tokens.reshape(len(rows), width), None
    else:
        real = np.arange(width) < lengths[:, None]
        ids = np.zeros(real.shape, np.int64)
        ids[real] = tokens
    return Piece(
        rows=rows,
        input_ids=ids,
        real=real,
        targets=np.concatenate([targets[row] for row in rows]).astype(np.int64, copy=False),
        ends=np.cumsum(lengths)[:-1],
        loss_inputs={
            name: np.concatenate([arrays[row] for row in rows]).astype(np.float32, copy=False)
            for name, arrays in loss_inputs.items()
        },
    )
