"""Completions as training data: token ids and log probabilities stay where they were sampled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crucible_kitchen import AdapterError, Completion, RateLimited, SamplingParams
from crucible_kitchen.workflows import Rollout, sample
from hypothesis import given
from hypothesis import strategies as st


def rollout(prompt: int, sampled: int) -> Rollout:
    tokens = np.arange(100, 100 + sampled)
    logprobs = -np.arange(1, sampled + 1, dtype=np.float32)
    return Rollout(np.arange(prompt), Completion("text", tokens, logprobs, "stop"))


sizes = st.integers(1, 6)


@given(sizes, sizes)
def test_each_sampled_token_is_a_target_with_its_own_logprob_and_advantage(
    prompt: int, sampled: int
) -> None:
    one = rollout(prompt, sampled)
    advantages = np.arange(1, sampled + 1, dtype=np.float32)
    datum = one.datum(advantages)
    targets = datum.loss_fn_inputs["target_tokens"]
    assert [*datum.model_input.to_ints(), targets[-1]] == one.tokens.tolist()
    of_sampled = targets >= 100
    assert of_sampled.sum() == sampled
    for name, values in (("logprobs", one.completion.logprobs), ("advantages", advantages)):
        given_values = datum.loss_fn_inputs[name]
        assert given_values.shape == targets.shape
        np.testing.assert_array_equal(given_values[of_sampled], values)
        assert not given_values[~of_sampled].any()
        np.testing.assert_array_equal(one.of_completion(given_values), values)


@given(sizes, sizes)
def test_one_advantage_is_that_of_every_sampled_token(prompt: int, sampled: int) -> None:
    inputs = rollout(prompt, sampled).datum(0.5).loss_fn_inputs
    assert inputs["advantages"].sum() == 0.5 * sampled


@given(sizes, sizes)
def test_as_an_example_the_sampled_tokens_alone_are_trained_on(prompt: int, sampled: int) -> None:
    example = rollout(prompt, sampled).example()
    assert example.trained_tokens == sampled
    assert example.prompt.tolist() == list(range(prompt))


class Completer:
    """Answers with a completion for each prompt and sample, or with what it is given."""

    adapter = "scripted"

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[SamplingParams] = []

    def complete_batch(self, prompts: Any, params: SamplingParams) -> list[Any]:
        self.asked.append(params)
        return [
            self.answer or Completion("", np.array([prompt[0], k]), np.zeros(2, np.float32), "stop")
            for prompt in prompts
            for k in range(params.n)
        ]


def sampled(completer: Completer, step: int = 0) -> list[list[Rollout]]:
    prompts = [np.array([7, 8]), np.array([9])]
    return sample(completer, prompts, SamplingParams(4, n=3), 1, step)  # type: ignore[arg-type]


def test_rollouts_are_grouped_by_their_prompts() -> None:
    groups = sampled(Completer())
    assert [[r.sampled.tolist() for r in group] for group in groups] == [
        [[7, 0], [7, 1], [7, 2]],
        [[9, 0], [9, 1], [9, 2]],
    ]
    assert [r.prompt.tolist() for group in groups for r in group] == [[7, 8]] * 3 + [[9]] * 3


def test_the_seed_of_sampling_is_a_function_of_the_runs_seed_and_the_step() -> None:
    completer = Completer()
    for step in (0, 1, 0):
        sampled(completer, step)
    first, second, again = (params.seed for params in completer.asked)
    assert first == again != second
    assert all(params.logprobs for params in completer.asked)


def test_a_completion_that_failed_is_raised_and_not_left_out() -> None:
    with pytest.raises(RateLimited, match="later"):
        sampled(Completer(RateLimited("later")))


@pytest.mark.parametrize("missing", ["tokens", "logprobs"])
def test_a_completion_without_token_ids_or_logprobs_is_refused(missing: str) -> None:
    fields: dict[str, Any] = {"tokens": np.array([1]), "logprobs": np.zeros(1, np.float32)}
    fields[missing] = None
    with pytest.raises(AdapterError, match="the completer 'scripted' returned a completion"):
        sampled(Completer(Completion("x", finish_reason="stop", **fields)))
