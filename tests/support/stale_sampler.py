"""A mutant: a completer that silently keeps the first weights that it was asked for."""

from __future__ import annotations

from typing import Any

import pytest


def keep_first_weights(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Let a completer return answers of its first weights, whatever it is asked for.

    Args:
        monkeypatch: undoes it.
        module: has the function `find`, with which the completer finds weights by their reference:
            `kitchen_noop.completer`, or `crucible_adapter_torch.live_weights`.
    """
    find, kept = module.find, []

    def stale(reference: str) -> Any:
        kept.append(find(reference))
        return kept[0]

    monkeypatch.setattr(module, "find", stale)
