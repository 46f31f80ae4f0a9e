"""Weights go from a training session to the engine while it runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    Completer,
    Datum,
    InvalidInput,
    Kitchen,
    LoraConfig,
    ModelInput,
    NotFound,
    SamplingParams,
    SessionConfig,
    TrainingClient,
    Unavailable,
    Unsupported,
)
from vllm_model import train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # vLLM's own

PROMPT = [*b"assistant: "]


def difference(completer: Completer, client: TrainingClient, session: Any, model: str) -> float:
    """Return by how much sampler and trainer differ about an answer of this model, at most."""
    asked = SamplingParams(12, stop=(), seed=3, logprobs=True, model=model)
    answer = completer.complete(PROMPT, asked)
    assert answer.tokens is not None
    assert answer.logprobs is not None
    sequence = np.array([*PROMPT, *answer.tokens])
    datum = Datum(ModelInput.from_ints(sequence[:-1]), {"target_tokens": sequence[1:]})
    forward = client.await_(client.forward(session, [datum])).outputs[0]["logprobs"]
    return float(np.abs(answer.logprobs - forward[len(PROMPT) - 1 :]).max())


def engine_of(completer: Completer) -> Any:
    """Return vLLM's engine that the adapter has at the moment."""
    from crucible_adapter_vllm.completer import _sampler

    return _sampler(completer.options)._engine._llm  # type: ignore[arg-type]


@pytest.fixture
def fresh(kitchen: Kitchen) -> Any:
    """A session with weights of its own."""
    client = kitchen.training_client
    session = client.start_session(SessionConfig("tiny", seed=1))
    yield session
    client.close_session(session)


def test_each_step_is_sampled_from_the_same_engine(
    kitchen: Kitchen, vllm: Completer, fresh: Any
) -> None:
    client = kitchen.training_client
    engines = set()
    for _ in range(3):
        train(client, fresh, 2)
        reference = client.save_weights_for_sampler(fresh)
        assert difference(vllm, client, fresh, reference) < 1e-4
        engines.add(engine_of(vllm))
    assert len(engines) == 1


def test_sampler_and_trainer_differ_where_the_weights_are_not_those_of_now(
    kitchen: Kitchen, vllm: Completer, fresh: Any
) -> None:
    client = kitchen.training_client
    reference = client.save_weights_for_sampler(fresh)
    train(client, fresh, 2)
    assert difference(vllm, client, fresh, reference) > 1e-2


def test_weights_with_a_low_rank_update_are_handed_over_merged(
    kitchen: Kitchen, vllm: Completer
) -> None:
    client = kitchen.training_client
    lora = LoraConfig(rank=4, alpha=8.0)
    session = client.start_session(SessionConfig("tiny", lora=lora, seed=1))
    train(client, session, 3)
    assert difference(vllm, client, session, client.save_weights_for_sampler(session)) < 1e-4
    client.close_session(session)


def test_weights_of_a_folder_take_the_place_of_live_ones_in_the_same_engine(
    kitchen: Kitchen, vllm: Completer, fresh: Any
) -> None:
    client = kitchen.training_client
    train(client, fresh, 2)
    saved = client.save_weights_for_sampler(fresh, "saved")
    live = client.save_weights_for_sampler(fresh)
    asked = SamplingParams(12, stop=(), temperature=0.0, model=live)
    first = vllm.complete(PROMPT, asked)
    engine = engine_of(vllm)
    again = vllm.complete(PROMPT, replace(asked, model=saved))
    assert again.tokens is not None
    assert first.tokens is not None
    assert again.tokens.tolist() == first.tokens.tolist()
    assert difference(vllm, client, fresh, saved) < 1e-4
    assert engine_of(vllm) is engine


def test_what_was_cached_of_a_prompt_is_forgotten_with_the_weights(
    kitchen: Kitchen, vllm: Completer, fresh: Any
) -> None:
    """A prompt of more than one block of the cache, 128 tokens on a CPU."""
    client = kitchen.training_client
    prompt = PROMPT * 15
    before = client.save_weights_for_sampler(fresh)
    vllm.complete(prompt, SamplingParams(1, model=before))
    train(client, fresh, 2)
    after = client.save_weights_for_sampler(fresh)
    asked = SamplingParams(4, stop=(), temperature=0.0, logprobs=True, model=after)
    answer = vllm.complete(prompt, asked)
    assert answer.tokens is not None
    assert answer.logprobs is not None
    [score] = vllm.score([[*prompt, *answer.tokens.tolist()]], after)  # reads no cache
    np.testing.assert_allclose(answer.logprobs, score[len(prompt) - 1 :], atol=1e-4)


def test_weights_that_were_replaced_are_not_found(
    kitchen: Kitchen, vllm: Completer, fresh: Any
) -> None:
    client = kitchen.training_client
    first = client.save_weights_for_sampler(fresh)
    vllm.complete(PROMPT, SamplingParams(1, model=first))
    client.save_weights_for_sampler(fresh)
    with pytest.raises(NotFound):
        vllm.complete(PROMPT, SamplingParams(1, model=first))


def test_an_answer_from_other_weights_is_an_error(
    kitchen: Kitchen, vllm: Completer, fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if vLLM had said that it took the weights, and had not."""
    from crucible_adapter_vllm import transfer

    async def pretend(*arguments: object, **others: object) -> None:
        pass

    client = kitchen.training_client
    vllm.complete(PROMPT, SamplingParams(1, model=client.save_weights_for_sampler(fresh)))
    monkeypatch.setattr(transfer, "hand_over", pretend)
    with pytest.raises(Exception, match="sampled from other weights"):
        vllm.complete(PROMPT, SamplingParams(1, model=client.save_weights_for_sampler(fresh)))
    monkeypatch.undo()
    reference = client.save_weights_for_sampler(fresh)
    assert difference(vllm, client, fresh, reference) < 1e-4


def test_weights_that_do_not_arrive_whole_are_an_error_and_the_next_ones_are_right(
    kitchen: Kitchen, vllm: Completer, fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crucible_adapter_torch.published import Published

    whole = Published.weights
    client = kitchen.training_client
    vllm.complete(PROMPT, SamplingParams(1, model=client.save_weights_for_sampler(fresh)))
    monkeypatch.setattr(Published, "weights", lambda self: [*whole(self)][:-1])
    with pytest.raises(Exception, match="not handed over"):
        vllm.complete(PROMPT, SamplingParams(1, model=client.save_weights_for_sampler(fresh)))
    monkeypatch.undo()
    reference = client.save_weights_for_sampler(fresh)
    assert difference(vllm, client, fresh, reference) < 1e-4


@pytest.mark.parametrize("temperature", [0.001, 2.5])
def test_a_temperature_that_vllm_would_replace_is_refused(
    vllm: Completer, folder: Path, temperature: float
) -> None:
    asked = SamplingParams(1, temperature=temperature, model=str(folder))
    with pytest.raises(Unsupported):
        vllm.complete(PROMPT, asked)


def test_an_engine_that_died_is_replaced(kitchen: Kitchen, vllm: Completer, folder: Path) -> None:
    asked = SamplingParams(4, stop=(), seed=1, model=str(folder))
    first = vllm.complete(PROMPT, asked)
    for process in engine_of(vllm).engine_core.resources.engine_manager.processes:
        process.kill()
        process.join()
    with contextlib.suppress(Unavailable):  # as long as it is not known
        vllm.complete(PROMPT, asked)
    again = vllm.complete(PROMPT, asked)
    assert first.tokens is not None
    assert again.tokens is not None
    assert again.tokens.tolist() == first.tokens.tolist()


# --- models of other kinds, each with an engine of its own ---


def test_an_unembedding_that_is_tied_to_the_embedding_changes_with_it(
    kitchen: Kitchen, vllm: Completer
) -> None:
    """On a CPU, vLLM 0.32 by itself goes on with that of the first weights."""
    client = kitchen.training_client
    session = client.start_session(SessionConfig("tied", seed=1))
    for _ in range(2):
        train(client, session, 2)
        assert difference(vllm, client, session, client.save_weights_for_sampler(session)) < 1e-4
    client.close_session(session)


def test_live_weights_of_a_mixture_of_experts_are_refused_on_a_cpu(
    kitchen: Kitchen, vllm: Completer
) -> None:
    """vLLM 0.32 would take them, and sample from something else."""
    client = kitchen.training_client
    session = client.start_session(SessionConfig("mixture", seed=1))
    reference = client.save_weights_for_sampler(session)
    with pytest.raises(AdapterError, match="experts of a mixture"):
        vllm.complete(PROMPT, SamplingParams(1, model=reference))
    client.close_session(session)


def test_an_argument_that_the_engine_does_not_have_is_refused(folder: Path) -> None:
    table = {"use": "vllm", "model": str(folder), "engine_args": {"enforce_eagr": True}}
    with (
        Kitchen(adapters={"completer": table}) as kitchen,
        pytest.raises(InvalidInput, match="enforce_eager"),
    ):
        kitchen.completer.complete(PROMPT, SamplingParams(1))
