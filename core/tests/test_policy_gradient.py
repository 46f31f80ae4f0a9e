"""Advantages within groups, and what else weighs on the gradient of a sampled token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crucible_kitchen import ConfigurationError, FloatArray, ForwardBackwardResult
from crucible_kitchen.workflows.algorithm import Sample
from crucible_kitchen.workflows.episodes.play import Episode
from crucible_kitchen.workflows.losses.advantages import group_advantages, mixed
from crucible_kitchen.workflows.losses.policy_gradient import (
    PolicyGradientConfig,
    check_one_policy,
    in_parts,
    kl_penalties,
    loss_scales,
    truncated_weights,
    weighed,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import ValidationError

REWARDS = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
    elements=st.floats(-10, 10, width=16),
)


@given(REWARDS)
def test_advantages_of_a_group_add_up_to_nothing_and_keep_the_differences(rewards: Any) -> None:
    advantages = group_advantages(rewards)
    np.testing.assert_allclose(advantages.sum(1), 0, atol=1e-9)
    np.testing.assert_allclose(np.diff(advantages), np.diff(rewards), atol=1e-9)


@given(REWARDS)
def test_divided_by_the_standard_deviation_the_advantages_of_mixed_groups_have_it_as_unit(
    rewards: Any,
) -> None:
    spread = rewards.std(1) > 1e-2
    advantages = group_advantages(rewards, by_std=True)
    np.testing.assert_allclose(advantages[spread].std(1), 1, rtol=1e-3)
    assert not advantages[~mixed(rewards)].any()


def test_a_group_of_equal_rewards_has_no_advantage_whatever_rounding_makes_of_its_mean() -> None:
    rewards = np.full((1, 3), 0.1)
    assert rewards.mean() != 0.1  # 0.10000000000000002
    for by_std in (False, True):
        assert group_advantages(rewards, by_std).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("reduction", "scales"),
    [("token_mean", [1 / 4, 1 / 4]), ("sequence_mean", [1 / 6, 1 / 2]), ("sum", [1, 1])],
)
def test_a_loss_is_divided_as_the_configuration_says(reduction: Any, scales: list[float]) -> None:
    assert loss_scales([3, 1], reduction).tolist() == pytest.approx(scales)


def nats(*values: float) -> FloatArray:
    return np.array(values, np.float32)


def test_the_penalty_of_a_departure_has_the_mean_departure_as_its_baseline() -> None:
    penalties, mean = kl_penalties([nats(-1, -1), nats(-2)], [nats(-2, -1), nats(-4)])
    assert mean == pytest.approx(1.0)
    assert [each.tolist() for each in penalties] == [[0, -1], [1]]
    assert all(each.dtype == np.float32 for each in penalties)


def test_a_weight_is_the_ratio_of_trainer_and_sampler_up_to_the_cap() -> None:
    [weights] = truncated_weights([nats(-1, -1, -1)], [nats(-1, 0, -200)], cap=2.0)
    assert weights.tolist() == pytest.approx([1, np.exp(-1), 2])


class Client:
    """A training client whose sessions are what they say of each sampled token, in nats."""

    adapter = "torch"

    def forward(self, session: float, datums: Any) -> Any:
        shapes = [datum.loss_fn_inputs["target_tokens"].shape for datum in datums]
        outputs = [{"logprobs": np.full(shape, session, np.float32)} for shape in shapes]
        return ForwardBackwardResult(0.0, outputs)

    def await_(self, future: Any) -> Any:
        return future


def episode(*logprobs: float) -> Episode:
    sampled = np.array([False] + [True] * len(logprobs))
    sample = Sample("", "")
    return Episode(
        np.arange(len(sampled)), sampled, nats(*logprobs), 0.0, 1, False, True, {}, sample
    )


def weigh(*episodes: tuple[Episode, float], **settings: Any) -> Any:
    client: Any = Client()
    config = PolicyGradientConfig(**settings)
    return weighed(client, -2.0, episodes, config, reference=-3.0)


def test_a_token_has_its_episodes_advantage_and_the_log_probability_of_its_sampling() -> None:
    [first, second], metrics = weigh((episode(-1, -2), 0.5), (episode(-4), -1.0))
    assert (first.advantages.tolist(), second.advantages.tolist()) == ([0.5, 0.5], [-1.0])
    assert (first.logprobs.tolist(), second.logprobs.tolist()) == ([-1, -2], [-4])
    assert metrics == {}


def test_tokens_that_are_likelier_than_in_the_reference_lose_reward() -> None:
    [one], metrics = weigh((episode(-1, -2, -6), 0.5), kl_penalty=0.1)
    # They depart by 2, 1 and -3 nats from the reference, by 0 on average.
    assert one.advantages.tolist() == pytest.approx([0.3, 0.4, 0.8])
    assert metrics == {"kl_policy_base": pytest.approx(0.0)}


def test_with_a_cap_the_ratio_begins_at_the_trainer_and_the_samplers_mistake_is_a_weight() -> None:
    [one], _ = weigh((episode(-1, -2, -6), 0.5), importance_sampling_cap=2.0)
    assert one.logprobs.tolist() == [-2, -2, -2]
    assert one.advantages.tolist() == pytest.approx([0.5 * np.exp(-1), 0.5, 1.0])


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 12))
def test_parts_have_whole_groups_each_once_and_in_order(groups: int, size: int, parts: int) -> None:
    episodes = [group for group in range(groups) for _ in range(size)]
    found = [list(part) for part in in_parts(episodes, size, parts)]
    assert [each for part in found for each in part] == episodes
    assert len(found) == min(parts, groups)
    assert all(len(part) % size == 0 and part for part in found)
    lengths = [len(part) for part in found]
    assert max(lengths) - min(lengths) <= size


@pytest.mark.parametrize(
    ("settings", "thresholds"),
    [
        ({}, {}),
        ({"loss": "ppo"}, {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}),
        (
            {"loss": "cispo", "clip_high_threshold": 5},
            {"clip_low_threshold": 0.0, "clip_high_threshold": 5.0},
        ),
    ],
)
def test_thresholds_are_complete_so_that_no_backends_own_apply(
    settings: dict[str, Any], thresholds: dict[str, float]
) -> None:
    assert PolicyGradientConfig(**settings).thresholds() == thresholds


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"clip_high_threshold": 1.2}, "loss = 'importance_sampling' clips nothing"),
        ({"loss": "ppo", "clip_low_threshold": 1.3}, "is above clip_high_threshold"),
    ],
)
def test_thresholds_that_say_nothing_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PolicyGradientConfig(**settings)


@pytest.mark.parametrize("substeps", [3, 8])
def test_updates_of_a_step_have_equal_parts_of_its_groups(substeps: int) -> None:
    class Config(PolicyGradientConfig):
        batch_size: int = 4

    assert Config(num_substeps=2).num_substeps == 2
    with pytest.raises(ValidationError, match="batch_size = 4 is not a multiple"):
        Config(num_substeps=substeps)


@pytest.mark.parametrize(("noise", "allowed"), [(0.02, 0.05), (0.4, 0.5)])
def test_a_sampler_of_low_precision_is_one_policy_with_the_trainer(
    noise: float, allowed: float
) -> None:
    sampled = [nats(-1, -2, -3), nats(-4)]
    trained = [each + np.float32(noise) for each in sampled]
    client: Any = Client()
    check_one_policy(client, sampled, trained, allowed)
    with pytest.raises(ConfigurationError, match="dropout"):
        check_one_policy(client, sampled, trained, noise / 2)
