"""AdamW, and its moments in 8 bits."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from crucible_adapter_torch.training.optimizers import Optimizer
from crucible_kitchen import AdamParams, Datum, InvalidInput, SessionConfig, Unsupported
from tiny_torch import LLAMA, TINY, MakeKitchen, assert_equal_to_the_bit, state, train

WIDE = {"wide": {**LLAMA, "hidden_size": 64}}
ADAM = AdamParams(beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.1)


def test_steps_are_those_of_torch_to_the_bit_with_and_without_some_gradients() -> None:
    torch.manual_seed(0)
    mine = {name: torch.nn.Parameter(torch.randn(3, 5)) for name in "abc"}
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in mine.values()]
    optimizer = Optimizer(mine, "float32")
    reference = torch.optim.AdamW(theirs, lr=0.0, fused=True)
    for step, rate in enumerate([0.1, 0.01, 0.3, 0.2, 0.1, 0.4, 0.5, 0.1]):
        for index, (weight, other) in enumerate(zip(mine.values(), theirs, strict=True)):
            other.grad = torch.randn(3, 5) if index or step not in (0, 1, 4) else None
            weight.grad = None if other.grad is None else other.grad.clone()
        if step == 6:  # as a checkpoint does
            optimizer.restore({name: kept.clone() for name, kept in optimizer.moments().items()})
        optimizer.step(rate, ADAM)
        for group in reference.param_groups:
            group.update(lr=rate, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1)
        reference.step()
        for weight, other in zip(mine.values(), theirs, strict=True):
            assert weight.grad is None
            assert torch.equal(weight, other)
    for (name, weight), other in zip(mine.items(), theirs, strict=True):
        assert weight.requires_grad
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            found = optimizer.moments()[f"{moment}.{name}"]
            assert torch.equal(found, reference.state[other][moment])


def test_steps_with_every_gradient_collect_no_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {name: torch.nn.Parameter(torch.ones(2)) for name in "ab"}
    optimizer, collected = Optimizer(weights, "float32"), []
    collect: Any = torch.optim.AdamW._init_group

    def counted(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        collected.append(args)
        return collect(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "_init_group", counted)
    for _ in range(5):
        for weight in weights.values():
            weight.grad = torch.ones(2)
        optimizer.step(0.1, ADAM)
    assert len(collected) == 1


def test_without_bitsandbytes_8_bits_say_what_to_install(
    make_kitchen: MakeKitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    client = make_kitchen(optimizer_state="8bit").training_client
    with pytest.raises(Unsupported, match=r"pip install 'crucible-adapter-torch\[bitsandbytes\]'"):
        client.start_session(TINY)


def test_moments_in_8_bits_take_a_quarter_and_continue_to_the_bit(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    pytest.importorskip("bitsandbytes")
    client = make_kitchen(optimizer_state="8bit", models=WIDE).training_client
    session = client.start_session(SessionConfig("wide"))
    first = client.await_(client.forward(session, datums)).loss
    train(client, session, datums, steps=3, rate=1e-3)
    reference = client.save_checkpoint(session, "x")
    engine = session.engine
    large = sum(weight.nbytes for weight in engine.weights.values() if weight.numel() >= 4096)
    held = sum(t.nbytes for t in engine.moments().values() if t.numel() >= 4096)
    assert held <= 0.5 * large  # two numbers of a byte, for one of four bytes
    again = client.start_session(SessionConfig("wide"))
    client.load_checkpoint(again, reference)
    for each in (session, again):
        train(client, each, datums, steps=2, rate=1e-3)
    assert_equal_to_the_bit(state(again), state(session))
    assert client.await_(client.forward(session, datums)).loss < first


def test_moments_of_another_kind_are_refused(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    pytest.importorskip("bitsandbytes")
    few = make_kitchen(optimizer_state="8bit").training_client
    session = few.start_session(TINY)
    train(few, session, datums)
    reference = few.save_checkpoint(session, "x")
    client = make_kitchen().training_client
    with pytest.raises(InvalidInput, match="another optimizer_state than float32"):
        client.load_checkpoint(client.start_session(TINY), reference)
