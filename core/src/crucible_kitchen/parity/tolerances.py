"""How far two backends may be apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from ..messages.spelling import did_you_mean


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The largest differences that are accepted. The defaults are those of float32.

    Args:
        loss: relative.
        grad_norm: relative.
        logprobs: absolute, in nats, of any token.
        curve: relative, of the loss of later steps, where only the first step can agree.
    """

    loss: float = 1e-5
    grad_norm: float = 1e-4
    logprobs: float = 1e-4
    curve: float = 0.1

    def changed(self, values: Mapping[str, float]) -> Tolerances:
        """Return others in which these values replace some."""
        return dataclasses.replace(self, **values)


NAMES = tuple(field.name for field in dataclasses.fields(Tolerances))

FLOAT32 = Tolerances()
OF_DTYPES: Mapping[str, Tolerances] = {
    "float32": FLOAT32,
    "float64": FLOAT32,
    "float16": Tolerances(loss=1e-3, grad_norm=0.016, logprobs=0.03),
    "bfloat16": Tolerances(loss=8e-3, grad_norm=0.125, logprobs=0.25),
}
"""By what the computation is rounded to. Below float32 they are 1, 16 and 32 units in the last
place, of 2**-10 and 2**-7. Measured between bfloat16 and float32, over 40 steps of a model of two
layers, whose loss fell from 5.5 to 3.1: 5.4e-4, 0.097 and 0.096."""


def of_dtypes(*dtypes: str | None) -> Tolerances:
    """Return the tolerances between backends that compute in these; the widest counts.

    Args:
        dtypes: names as in `get_info`; float32 for one that a backend does not say.
    """
    known = [OF_DTYPES.get(dtype or "float32", FLOAT32) for dtype in dtypes]
    return max(known, key=lambda each: each.logprobs)


def parsed(texts: list[str]) -> dict[str, float]:
    """Read tolerances as a command takes them, `loss=1e-4,logprobs=1e-3`.

    Raises:
        ConfigurationError: one is not a name and a number.
    """
    found: dict[str, float] = {}
    for text in (part.strip() for each in texts for part in each.split(",")):
        name, _, number = text.partition("=")
        if name not in NAMES:
            hint = did_you_mean(name, NAMES) or f"; there are {', '.join(NAMES)}"
            raise ConfigurationError(f"--tolerance: there is no figure {name!r}{hint}")
        try:
            found[name] = _positive(number)
        except ValueError:
            raise ConfigurationError(
                f"--tolerance: {name} takes a number that is not negative, such as {name}=1e-4, "
                f"not {number!r}"
            ) from None
    return found


def _positive(text: str) -> float:
    if (value := float(text)) >= 0:  # false for NaN
        return value
    raise ValueError


def dtype_of(facts: Mapping[str, Any]) -> str | None:
    """Return what a backend computes in, if it says so."""
    found = facts.get("dtype")
    return found if isinstance(found, str) else None
