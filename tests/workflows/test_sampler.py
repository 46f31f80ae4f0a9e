"""The weights of a session in the completer, and how it is found out that it has others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import kitchen_noop.completer
import numpy as np
import pytest
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    Completion,
    ConfigurationError,
    CrucibleWarning,
    Datum,
    Kitchen,
    ModelInput,
    SamplingParams,
    SessionConfig,
    Unsupported,
    hookimpl,
)
from crucible_kitchen.workflows.sampling.canary import StaleWeights
from crucible_kitchen.workflows.sampling.sampler import Sampler, SamplerConfig, check_live_weights
from stale_sampler import keep_first_weights

import kitchen_noop

NOOPS = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
PROBE = np.arange(40, 60)


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with Kitchen(NOOPS) as made:
        yield made


def session_of(kitchen: Kitchen) -> Any:
    return kitchen.training_client.start_session(SessionConfig("any"))


def take_step(kitchen: Kitchen, session: Any) -> None:
    client = kitchen.training_client
    inputs: dict[str, Any] = {"target_tokens": PROBE[1:]}
    inputs["weights"] = np.ones(len(PROBE) - 1, np.float32)
    client.forward_backward(session, [Datum(ModelInput.from_ints(PROBE[:-1]), inputs)])
    client.optim_step(session, 0.1, AdamParams())


class Inner:
    """A completer that passes everything on to the noop."""

    def __init__(self) -> None:
        self.asked: list[SamplingParams] = []
        self.options = kitchen_noop.completer.Options(latency_scale=0)

    @hookimpl
    def complete(self, prompt: Any, params: SamplingParams) -> Completion:
        return kitchen_noop.completer.complete(self.options, prompt, params)

    @hookimpl
    def complete_batch(
        self, prompts: Sequence[Any], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        self.asked.append(params)
        return kitchen_noop.completer.complete_batch(self.options, prompts, params)


class Mute(Inner):
    """One behind which there is a server without log probabilities."""

    @hookimpl
    def complete_batch(
        self, prompts: Sequence[Any], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        if params.logprobs:
            return [Unsupported("the server ignored `logprobs`") for _ in prompts]
        return super().complete_batch(prompts, params)


class Unscoring(Inner):
    """One behind which there is a server that cannot score."""

    @hookimpl
    def score(self, sequences: Sequence[Any], model: str | None) -> list[Any]:
        raise Unsupported("the server has no prompt_logprobs")


def test_the_difference_is_measured_at_each_synchronisation(kitchen: Kitchen) -> None:
    sampler, session = Sampler(kitchen, SamplerConfig()), session_of(kitchen)
    references = set()
    for _ in range(3):
        references.add(sampler.synchronise(session, PROBE))
        assert sampler.metrics == {"sampler/logprob_diff": 0.0}
        take_step(kitchen, session)
    assert len(references) == 3


def test_a_completer_with_the_first_weights_is_stale_after_the_first_step(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_first_weights(monkeypatch, kitchen_noop.completer)
    sampler, session = Sampler(kitchen, SamplerConfig()), session_of(kitchen)
    sampler.synchronise(session, PROBE)
    take_step(kitchen, session)
    with pytest.raises(StaleWeights, match=r"the completer 'kitchen_noop\.completer' is stale"):
        sampler.synchronise(session, PROBE)
    assert sampler.metrics["sampler/logprob_diff"] > 0.01


@pytest.mark.parametrize("completer", [Inner, Unscoring])
def test_completions_stand_for_the_probe_where_the_completer_cannot_score(
    completer: type[Inner], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = completer()
    with Kitchen({**NOOPS, "completer": made}) as kitchen:
        sampler, session = Sampler(kitchen, SamplerConfig()), session_of(kitchen)
        for _ in range(3):
            sampler.synchronise(session, PROBE)
            assert sampler.metrics == {"sampler/logprob_diff": 0.0}
            take_step(kitchen, session)
        [params] = {(p.temperature, p.top_p, p.top_k, p.seed, p.logprobs) for p in made.asked}
        assert params == (1.0, 1.0, -1, 0, True)
        keep_first_weights(monkeypatch, kitchen_noop.completer)
        sampler.synchronise(session, PROBE)
        take_step(kitchen, session)
        with pytest.raises(StaleWeights, match=r"'\w+' is stale"):
            sampler.synchronise(session, PROBE)


def test_without_log_probabilities_a_warning_says_once_that_nothing_is_verified() -> None:
    with Kitchen({**NOOPS, "completer": Mute()}) as kitchen:
        sampler, session = Sampler(kitchen, SamplerConfig()), session_of(kitchen)
        with pytest.warns(CrucibleWarning, match="'Mute' returns no log probabilities"):
            sampler.synchronise(session, PROBE)
        with warnings.catch_warnings(action="error"):
            sampler.synchronise(session, PROBE)
        assert sampler.metrics == {}


def test_without_a_trainers_forward_a_warning_says_that_nothing_is_verified(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    supports = kitchen.training_client.supports
    monkeypatch.setattr(
        kitchen.training_client, "supports", lambda name: name != "forward" and supports(name)
    )
    sampler, session = Sampler(kitchen, SamplerConfig()), session_of(kitchen)
    with pytest.warns(CrucibleWarning, match=r"'kitchen_noop\.training_client' has no forward"):
        sampler.synchronise(session, PROBE)
    assert sampler.metrics == {}


def test_another_session_is_not_compared_with_the_one_before(kitchen: Kitchen) -> None:
    sampler = Sampler(kitchen, SamplerConfig())
    for seed in (1, 2):
        session = kitchen.training_client.start_session(SessionConfig("any", seed=seed))
        sampler.synchronise(session, PROBE)
        assert sampler.metrics == {"sampler/logprob_diff": 0.0}


@pytest.mark.parametrize("length", [1, 2, 3, 500])
def test_a_probe_of_any_length_is_compared(kitchen: Kitchen, length: int) -> None:
    sampler = Sampler(kitchen, SamplerConfig())
    sampler.synchronise(session_of(kitchen), np.arange(40, 40 + length))
    assert sampler.metrics == {"sampler/logprob_diff": 0.0}


def test_a_client_whose_weights_no_completer_can_use_is_refused_by_name(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_live_weights(kitchen, "workflow.use")
    monkeypatch.setattr(kitchen.training_client, "supports", lambda name: False)
    with pytest.raises(ConfigurationError, match=r"workflow\.use: the training client"):
        check_live_weights(kitchen, "workflow.use")
