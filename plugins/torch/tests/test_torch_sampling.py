"""A token is drawn from the distribution that the parameters describe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from crucible_adapter_torch.sampling.choosing import sample
from crucible_kitchen import SamplingParams
from numpy.typing import NDArray
from torch import Tensor


def frequencies(
    logits: list[float], params: SamplingParams, draws: int = 4000
) -> tuple[NDArray[np.float64], Tensor, Tensor]:
    """Return how often each token is drawn, the tokens, and their logprobs."""
    uniforms = (np.arange(draws) + 0.5) / draws  # a grid: exact, not random
    tokens, logprobs = sample(torch.tensor([logits] * draws), params, uniforms)
    return np.bincount(tokens, minlength=len(logits)) / draws, tokens, logprobs


LOGITS = [1.0, 3.0, 2.0, -1.0, 0.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_sets_the_distribution(temperature: float) -> None:
    found, _, _ = frequencies(LOGITS, SamplingParams(1, temperature=temperature))
    expected = np.exp(np.array(LOGITS) / temperature)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3)


def test_top_k_keeps_the_most_likely() -> None:
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_k=2))
    expected = np.exp([0.0, 3.0, 2.0, 0.0, 0.0]) * [0, 1, 1, 0, 0]
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, [1]), (0.65, [1, 2]), (0.96, [0, 1, 2, 4])])
def test_top_p_keeps_the_smallest_set_that_holds_the_probability(
    top_p: float, kept: list[int]
) -> None:
    # the probabilities, sorted, add up to 0.64, 0.87, 0.957, 0.99, 1
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_p=top_p))
    assert np.flatnonzero(found).tolist() == kept


def test_top_p_is_of_what_top_k_left() -> None:
    # of the two that are left, the first has 0.73, though 0.64 of all
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_k=2, top_p=0.7))
    assert np.flatnonzero(found).tolist() == [1]


def test_a_top_k_beyond_the_vocabulary_keeps_all() -> None:
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_k=100))
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3, 4]


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-np.inf, 0.0, -np.inf]] * 2)
    tokens, _ = sample(logits, SamplingParams(1), np.array([0.0, np.nextafter(1, 0)]))
    assert tokens.tolist() == [1, 1]


def test_a_vocabulary_of_several_blocks_is_drawn_from_as_a_small_one() -> None:
    logits = np.log(np.random.default_rng(0).uniform(0, 1, 300)).astype(np.float32)
    found, tokens, logprobs = frequencies(logits.tolist(), SamplingParams(1), draws=30000)
    expected = torch.from_numpy(logits).log_softmax(-1)
    np.testing.assert_allclose(found, expected.exp(), atol=1e-4)
    torch.testing.assert_close(logprobs, expected[tokens])


@pytest.mark.parametrize("place", [0, 127, 128, 255, 299])
def test_blocks_without_probability_are_never_drawn_from(place: int) -> None:
    logits = torch.full((2, 300), -np.inf)
    logits[:, place] = 0.0
    tokens, _ = sample(logits, SamplingParams(1), np.array([0.0, np.nextafter(1, 0)]))
    assert tokens.tolist() == [place, place]


def test_rounding_does_not_reach_a_token_of_no_probability() -> None:
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    logits[:, 127:] = -np.inf  # the last of a block, and all other blocks
    tokens, _ = sample(logits, SamplingParams(1), np.full(64, np.nextafter(1, 0)))
    assert tokens.max() < 127


@pytest.mark.parametrize("temperature", [1e-308, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    found, _, _ = frequencies(LOGITS, SamplingParams(1, temperature=temperature))
    assert found[1] == 1


def test_logprobs_are_the_models_whatever_the_sampling() -> None:
    expected = torch.tensor(LOGITS).log_softmax(-1)
    for params in (SamplingParams(1, temperature=0), SamplingParams(1, temperature=3, top_k=2)):
        _, tokens, logprobs = frequencies(LOGITS, params)
        torch.testing.assert_close(logprobs, expected[tokens])
