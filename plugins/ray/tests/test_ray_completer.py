"""What sampling on several actors promises beyond the conformance suite."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import crucible_adapter_ray.completer as ray_completer
import numpy as np
import pytest
import ray
from crucible_adapter_ray.sampling.options import CompleterOptions
from crucible_kitchen import (
    AdapterError,
    Completer,
    Completion,
    InvalidInput,
    Kitchen,
    NotFound,
    SamplingParams,
    Unavailable,
    Unsupported,
)
from crucible_kitchen.testing import bound
from vllm_model import MODELS, train

pytestmark = pytest.mark.slow

CPU = {"models": MODELS, "device": "cpu"}
PROMPTS = [[*b"what is %d?" % number] for number in range(5)]
SAMPLED = SamplingParams(8, seed=3, n=2, logprobs=True)


def members(completer: Completer) -> list[Any]:
    """Return the actors of a completer."""
    options: Any = completer.options
    return list(ray_completer._sampler(options)._fleet._members)


def kill(member: Any) -> None:
    os.kill(member.process, signal.SIGKILL)


def logprobs(answers: Sequence[Completion | AdapterError]) -> list[Any]:
    assert all(isinstance(each, Completion) for each in answers)
    return [each.logprobs for each in answers if isinstance(each, Completion)]


def test_one_actor_says_what_torch_says_to_the_bit_and_two_within_rounding(
    one_actor: Completer, two_actors: Completer
) -> None:
    with bound("completer", "torch", model="tiny", **CPU) as torch:
        expected = torch.complete_batch(PROMPTS, SAMPLED)
        scores = torch.score(PROMPTS)
    said = one_actor.complete_batch(PROMPTS, SAMPLED)
    for left, right in zip(logprobs(said), logprobs(expected), strict=True):
        np.testing.assert_array_equal(left, right)
    for left, right in zip(one_actor.score(PROMPTS), scores, strict=True):
        np.testing.assert_array_equal(left, right)
    said = two_actors.complete_batch(PROMPTS, SAMPLED)
    for left, right in zip(said, expected, strict=True):
        assert isinstance(left, Completion)
        assert isinstance(right, Completion)
        assert left.text == right.text
    for left, right in zip(logprobs(said), logprobs(expected), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    for left, right in zip(two_actors.score(PROMPTS), scores, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_each_actor_has_the_weights_of_a_session_as_they_were_saved_and_no_file_is_written(
    kitchen: Kitchen, session: Any, two_actors: Completer
) -> None:
    client = kitchen.training_client
    options: Any = client.options
    written = {*options.checkpoint_dir.rglob("*")}
    seen, references = [], []
    for _ in range(2):
        train(client, session, 1)
        references.append(client.save_weights_for_sampler(session))
        first, second = two_actors.score([PROMPTS[0], PROMPTS[0]], references[-1])  # one of each
        np.testing.assert_array_equal(first, second)
        seen.append(first)
    assert np.abs(seen[0] - seen[1]).max() > 1e-2
    assert {*options.checkpoint_dir.rglob("*")} == written
    with pytest.raises(NotFound, match="until its session saves the next ones"):
        two_actors.score(PROMPTS, references[0])


def test_what_a_dead_actor_had_of_a_batch_is_unavailable_and_the_next_call_has_all(
    kitchen: Kitchen, session: Any, two_actors: Completer
) -> None:
    model = kitchen.training_client.save_weights_for_sampler(session)
    params = SamplingParams(8, seed=3, n=2, logprobs=True, model=model)
    whole = two_actors.complete_batch(PROMPTS, params)
    kill(members(two_actors)[1])
    said = two_actors.complete_batch(PROMPTS, params)
    lost = [each for each in said if isinstance(each, AdapterError)]
    assert 0 < len(lost) < len(said)
    assert said[-len(lost) :] == lost
    for each in lost:
        assert isinstance(each, Unavailable)
        assert each.retryable
        assert "a sampling actor (process" in str(each)
    again = two_actors.complete_batch(PROMPTS, params)
    for left, right in zip(logprobs(again), logprobs(whole), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_stream_that_is_left_ends_in_its_actor(one_actor: Completer) -> None:
    def count_chunks(actor: Any) -> None:  # in the actor, where no module of the tests is
        from crucible_adapter_torch import completer

        streamed, actor.chunks = completer.stream_complete, 0
        actor.streamed = streamed

        def counted(*arguments: Any) -> Iterator[Any]:
            deadline = time.monotonic() + 10  # by which it is left after the first
            for chunk in streamed(*arguments):
                yield chunk
                actor.chunks += 1
                while not ray.get_runtime_context().is_canceled() and time.monotonic() < deadline:
                    time.sleep(0.01)

        completer.stream_complete = counted  # type: ignore[assignment]

    def chunks_counted(actor: Any) -> int:
        from crucible_adapter_torch import completer

        completer.stream_complete = actor.streamed  # other tests have the same actor
        return int(actor.chunks)

    one_actor.complete(PROMPTS[0], SamplingParams(1))
    [member] = members(one_actor)
    run_in_actor = member._actor.__ray_call__.remote
    ray.get(run_in_actor(count_chunks))
    with one_actor.stream_complete(PROMPTS[0], SamplingParams(100, stop=())) as stream:
        next(stream)
    assert member.calls == 0
    one_actor.complete(PROMPTS[0], SamplingParams(1))  # after it, on the only actor
    assert ray.get(run_in_actor(chunks_counted)) < 100


def test_a_stream_of_an_actor_that_dies_is_unavailable(two_actors: Completer) -> None:
    two_actors.complete(PROMPTS[0], SamplingParams(1))
    with two_actors.stream_complete(PROMPTS[0], SamplingParams(150, stop=())) as stream:
        next(stream)
        [busy] = [member for member in members(two_actors) if member.calls]
        kill(busy)
        with pytest.raises(Unavailable, match="died"):
            list(stream)
    answers = two_actors.complete_batch(PROMPTS, SAMPLED)
    assert all(isinstance(each, Completion) for each in answers)


def test_a_sequence_that_cannot_be_scored_is_named_by_its_place_in_the_whole(
    two_actors: Completer,
) -> None:
    with pytest.raises(InvalidInput, match="sequence 4: the prompt holds tokens 3 to 9999"):
        two_actors.score([[1, 2], [3, 4], [5, 6], [7, 8], [3, 9999]])


def test_actors_for_which_there_is_no_room_are_unavailable_in_time() -> None:
    none = {"cpus": 1e6, "start_timeout": 0.1, "actors": 3, **CPU}
    with (
        bound("completer", "ray", model="tiny", **none) as completer,
        pytest.raises(Unavailable, match=r"Each of 3 takes 1e\+06 processors and 0 GPUs of a node"),
    ):
        completer.complete(PROMPTS[0], SamplingParams(1))


def test_a_ping_asks_the_cluster() -> None:
    with (
        bound("completer", "ray", address="10.0.0.1:6379") as completer,
        pytest.raises(InvalidInput, match="this process is connected to the Ray at"),
    ):
        completer.ping()


def test_live_weights_of_another_training_client_are_unsupported(two_actors: Completer) -> None:
    with pytest.raises(Unsupported, match=r"takes those of training_client\.ray"):
        two_actors.complete(PROMPTS[0], SamplingParams(1, model="torch-live:0"))


def test_the_tokenizer_of_a_model_is_that_of_torch(two_actors: Completer) -> None:
    tokenizer = two_actors.helper("get_tokenizer")()
    assert tokenizer.encode("größe") == [*"größe".encode()]
    assert tokenizer.decode(tokenizer.encode("größe")) == "größe"


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_which_gpu_an_actor_has_is_for_ray_to_say(device: str) -> None:
    with pytest.raises(ValueError, match="Ray says which GPU an actor has"):
        CompleterOptions(device=device)
