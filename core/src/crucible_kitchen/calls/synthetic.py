"""Adapters that make their results up, such as noops, say so by the helper `synthetic`."""

from __future__ import annotations

from typing import Any

from ..errors import Unsupported
from .port import Port


def synthetic(port: Port) -> str:
    """Return why a bound adapter's results are made up; "" if they are real.

    Raises:
        AdapterError: the helper failed.
    """
    try:
        helper = port.helper("synthetic")
    except Unsupported:
        return ""
    return _text(helper())


def declares(adapter: Any) -> bool:
    """Say whether an adapter has the helper, so that its results may be made up."""
    return getattr(getattr(adapter, "synthetic", None), "crucible_helper", False) is True


def reason(adapter: Any, opts: Any) -> str:
    """Return what `synthetic` does for an adapter with the helper that is not bound."""
    return _text(adapter.synthetic(opts))


def _text(answer: Any) -> str:
    return str(answer) if answer else ""
