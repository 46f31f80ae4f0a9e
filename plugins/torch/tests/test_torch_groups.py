"""Where the ranks of a session compute, on a machine with GPUs."""

from __future__ import annotations

import pytest
import torch
from crucible_adapter_torch.parallel.group import Group
from torch import distributed


@pytest.mark.parametrize(("name", "index"), [("cuda", 3), ("cuda:1", 1)])
def test_a_rank_computes_on_the_gpu_that_is_its_own(
    name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch refuses to make a device current that has no number, such as that of `auto`."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert Group(torch.device(name))._device == torch.device("cuda", index)
    assert chosen == [torch.device("cuda", index)]
