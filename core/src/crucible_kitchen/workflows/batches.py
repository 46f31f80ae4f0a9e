"""Orders and shares of rows: functions of their arguments alone, on every machine."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ..types import IntArray


def share(ratio: float, of: int) -> int:
    """Return `ratio * of` rounded up, the ratio taken as it is written.

    In floating point 0.07 times 100 is a bit more than 7, which would be 8 steps.
    """
    return math.ceil(Fraction(repr(ratio)) * of)


def permutation(count: int, *seeds: int) -> IntArray:
    """Return an order of `count` rows, int64 `(count,)`: a function of the arguments alone.

    The order of the keys that PCG64 gives, since NumPy keeps the stream of a bit generator, but not
    what `Generator.permutation` makes of it (NEP 19).
    """
    keys = np.random.PCG64(np.random.SeedSequence(seeds)).random_raw(count)
    return np.argsort(keys, kind="stable")
