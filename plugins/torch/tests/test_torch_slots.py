"""Rows come to a cache and leave it, and each is read as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from crucible_adapter_torch.models.language_model import LanguageModel
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import ModelOptions
from crucible_adapter_torch.sampling.generation import Answer, generate
from crucible_adapter_torch.sampling.reading import Again
from crucible_adapter_torch.sampling.slots import Slots
from crucible_kitchen import SamplingParams
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_torch import LLAMA

GROUPED = {**LLAMA, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
MODEL = load(ModelOptions(models={"grouped": GROUPED}, device="cpu"), "grouped")
PARAMS = SamplingParams(5, temperature=0, stop=())


@contextmanager
def passes(model: LanguageModel) -> Iterator[list[tuple[int, int]]]:
    """Collect the shapes of what the model reads."""
    shapes: list[tuple[int, int]] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    yield shapes
    hook.remove()


def answers(
    prompts: list[list[int]], params: SamplingParams = PARAMS, model: LanguageModel = MODEL
) -> list[Answer]:
    return [Answer(model, np.array(p), params, seed) for seed, p in enumerate(prompts)]


def finished(
    given: list[Answer],
    params: SamplingParams = PARAMS,
    budget: int = 1000,
    model: LanguageModel = MODEL,
) -> list[list[int]]:
    for _ in generate(model, given, params, budget):
        pass
    return [answer.tokens for answer in given]


finished(answers([[1]]))  # so that it is known how the model can be read


def test_equal_prompts_are_read_once() -> None:
    with passes(MODEL) as shapes:
        finished(answers([[1, 2, 3, 4, 5, 6], [7, 8, 9]] * 8))
    assert shapes == [(2, 5)] + 5 * [(16, 1)]


def test_a_prompt_that_a_row_has_read_is_not_read_for_one_that_comes_later() -> None:
    limits = (9, 1, 1, 1, 1, 1)
    prompt = np.array([1, 2, 3, 4, 5, 6])
    group = [
        Answer(MODEL, prompt, SamplingParams(limit, temperature=0, stop=()), 0) for limit in limits
    ]
    with passes(MODEL) as shapes:
        finished(group, budget=2 * 15)
    assert [shape for shape in shapes if shape[1] > 1] == [(1, 5)]
    assert len({tuple(answer.tokens[:1]) for answer in group}) == 1


def test_a_waiting_prompt_takes_the_place_of_one_that_has_ended() -> None:
    limits = (9, 1, 1, 1, 1, 1)
    group = [
        Answer(MODEL, np.array([row]), SamplingParams(limit, temperature=0, stop=()), 0)
        for row, limit in enumerate(limits)
    ]
    with passes(MODEL) as shapes:
        finished(group, budget=2 * 10)
    # one row goes on for nine steps; the others are beside it, one at a time
    assert shapes == 5 * [(2, 1)] + 4 * [(1, 1)]


@pytest.mark.parametrize("budget", [30, 1000])
def test_a_row_that_is_not_finite_leaves_nothing_in_its_place(budget: int) -> None:
    model = load(ModelOptions(models={"grouped": GROUPED}, device="cpu"), "grouped")
    finished(answers([[1]]), model=model)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[0] = float("nan")
    prompts = [[*range(1, 10)], [0] * 8, [1, 2, 3], [1, 2], [3]]  # 0 is also what pads rows
    alone = [finished(answers([prompt]), model=model)[0] for prompt in prompts]
    together = answers(prompts)
    assert finished(together, budget=budget, model=model) == alone
    assert [answer.error is not None for answer in together] == [False, True, *3 * [False]]


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    limits=st.lists(st.integers(1, 7), min_size=9, max_size=9),
    kinds=st.integers(1, 3),
    budget=st.integers(1, 60),
)
def test_answers_do_not_depend_on_who_comes_and_goes(
    lengths: list[int], limits: list[int], kinds: int, budget: int
) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 257, 9) for _ in range(kinds)]

    def made(row: int) -> Answer:
        params = SamplingParams(limits[row], stop=())
        return Answer(MODEL, texts[row % kinds][: lengths[row]], params, row)

    rows = range(len(lengths))
    alone = [finished([made(row)], SamplingParams(9)) for row in rows]
    together = finished([made(row) for row in rows], SamplingParams(9), budget)
    assert together == [tokens for [tokens] in alone]


def test_slots_say_what_a_whole_pass_says_while_rows_come_and_leave() -> None:
    rng = np.random.default_rng(1)
    texts: list[list[int]] = []
    slots, at_most = Slots(MODEL), 40
    for turn in range(20):
        if turn % 3 == 0:
            new = [rng.integers(0, 257, rng.integers(1, 6)) for _ in range(2)]
            slots.join([*new, new[0]], at_most)
            texts += [[*map(int, prompt)] for prompt in (*new, new[0])]
        expected = Again(MODEL, [np.array(text) for text in texts]).advance()
        found = slots.advance()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        tokens = found.argmax(-1)
        texts = [[*text, token] for text, token in zip(texts, tokens.tolist(), strict=True)]
        kept = [*range(len(texts))]
        if turn % 4 == 1:  # the last one closes the gap
            kept[1] = kept.pop()
        texts = [texts[row] for row in kept]
        slots.append(slots.keep(kept, tokens))
