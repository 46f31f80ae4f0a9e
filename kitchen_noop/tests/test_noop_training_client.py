"""The training client that trains nothing keeps every promise of its port."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterTimeout,
    Datum,
    EncodedTextChunk,
    ImageChunk,
    InvalidInput,
    Kitchen,
    ModelInput,
    NotFound,
    SamplingParams,
    SessionConfig,
    SessionFailed,
    TrainingClient,
    Unavailable,
    custom_loss,
)
from hypothesis import given
from hypothesis import strategies as st
from kitchen_noop.loss_formulas import loss_and_gradient

from kitchen_noop import completer, conditions, training_client

CONFIG = SessionConfig("any/model")


def noop(**options: Any) -> TrainingClient:
    table = {"use": training_client, "latency_scale": 0, **options}
    return Kitchen(adapters={"training_client": table}).training_client


@pytest.fixture
def client() -> TrainingClient:
    return noop()


def datum(tokens: list[int], **inputs: Any) -> Datum:
    """A datum that predicts each token from the one before, with weights of one by default."""
    arrays = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
    arrays = arrays or {"weights": np.ones(len(tokens) - 1, np.float32)}
    return Datum(
        ModelInput.from_ints(tokens[:-1]), {"target_tokens": np.asarray(tokens[1:]), **arrays}
    )


BATCH = [datum([5, 6, 7, 8]), datum([9, 10])]


def step(client: TrainingClient, session: Any, learning_rate: float = 1e-3) -> tuple[float, float]:
    """Run one step; return its loss and the gradient's norm."""
    loss = client.forward_backward(session, BATCH)
    norm = client.optim_step(session, learning_rate)
    grad_norm = client.await_(norm).grad_norm
    assert grad_norm is not None
    return client.await_(loss).loss, grad_norm


def steps(client: TrainingClient, session: Any, count: int) -> list[tuple[float, float]]:
    return [step(client, session) for _ in range(count)]


# --- sessions ---


def test_a_session_that_is_not_trainable_only_evaluates(client: TrainingClient) -> None:
    session = client.start_session(SessionConfig("m", trainable=False))
    assert client.await_(client.forward(session, BATCH)).loss > 0
    with pytest.raises(InvalidInput, match="trainable"):
        client.forward_backward(session, BATCH)
    with pytest.raises(InvalidInput, match="trainable"):
        client.optim_step(session, 1e-3)


# --- losses ---


def test_loss_and_gradient_norm_fall(client: TrainingClient) -> None:
    history = steps(client, client.start_session(CONFIG), 301)
    for column in zip(*history, strict=True):
        assert column[0] > column[20] > column[100] > column[300] > 0


def test_the_curve_is_a_function_of_the_seed(client: TrainingClient) -> None:
    one, same, other = (
        steps(client, client.start_session(SessionConfig("m", seed=seed)), 5) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_the_gradient_norm_is_noisy_but_the_loss_of_one_step_is_not(
    client: TrainingClient,
) -> None:
    session = client.start_session(CONFIG)
    first, again = (client.await_(client.forward(session, BATCH)).loss for _ in range(2))
    assert first == again
    norms = [norm for _, norm in steps(client, session, 50)]
    assert sorted(norms, reverse=True) != norms


def test_logprobs_are_float32_of_the_input_s_length_in_datum_order(
    client: TrainingClient,
) -> None:
    session = client.start_session(CONFIG)
    result = client.await_(client.forward_backward(session, BATCH))
    assert [output["logprobs"].shape for output in result.outputs] == [(3,), (1,)]
    assert all(output["logprobs"].dtype == np.float32 for output in result.outputs)
    assert all((output["logprobs"] < 0).all() for output in result.outputs)
    alike = client.await_(client.forward(session, [datum([5, 5, 5])])).outputs[0]["logprobs"]
    assert alike[0] != alike[1]  # the place of a token matters
    alone = client.await_(client.forward(session, BATCH[1:]))
    np.testing.assert_array_equal(alone.outputs[0]["logprobs"], result.outputs[1]["logprobs"])


finite = st.floats(-3, 3, width=32)
per_token = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*(st.lists(finite, min_size=n, max_size=n) for _ in range(2)))
)


@given(per_token, st.sampled_from(["importance_sampling", "ppo", "cispo"]))
def test_losses_are_those_of_the_formulas(
    values: tuple[list[float], list[float]], loss_fn: str
) -> None:
    client = noop()
    session = client.start_session(CONFIG)
    n = len(values[0])
    tokens = list(range(n + 1))
    weighted = client.await_(client.forward_backward(session, [datum(tokens, weights=values[0])]))
    p = weighted.outputs[0]["logprobs"].astype(np.float64)
    assert weighted.loss == pytest.approx(-np.dot(values[0], p), rel=1e-12, abs=1e-12)

    q, advantages = p + np.asarray(values[0]), np.asarray(values[1])
    config = {} if loss_fn == "importance_sampling" else {"clip_low_threshold": 0.7}
    sampled = datum(tokens, logprobs=q, advantages=advantages)
    result = client.await_(client.forward_backward(session, [sampled], loss_fn, config))
    r = np.exp(p - sampled.loss_fn_inputs["logprobs"])
    expected = {
        "importance_sampling": -(r * advantages).sum(),
        "ppo": -np.minimum(r * advantages, r.clip(0.7, 1.2) * advantages).sum(),
        "cispo": -(r.clip(0.7, 4.0) * p * advantages).sum(),
    }[loss_fn]
    assert result.loss == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_gradient_of_cross_entropy_is_minus_the_weights() -> None:
    weights = np.asarray([0.5, -2.0], np.float32)
    p = np.asarray([-1.0, -3.0], np.float32)
    _, slope = loss_and_gradient("cross_entropy", {}, p, {"weights": weights})
    np.testing.assert_array_equal(slope, -weights)


@pytest.mark.parametrize("loss_fn", ["importance_sampling", "ppo", "cispo"])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_the_gradient_is_that_of_the_loss(loss_fn: str, advantage: float, shift: float) -> None:
    p = np.asarray([-1.0], np.float32)
    inputs = {"logprobs": p + shift, "advantages": np.asarray([advantage], np.float32)}
    config = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
    _, (slope,) = loss_and_gradient(loss_fn, config, p, inputs)
    ratio = math.exp(-shift)
    if loss_fn == "cispo":  # its ratio is a constant, by a stop-gradient
        assert slope == pytest.approx(-min(max(ratio, 0.8), 1.2) * advantage)
    else:
        h = np.float32(2**-10)
        above, below = (loss_and_gradient(loss_fn, config, x, inputs)[0] for x in (p + h, p - h))
        assert slope == pytest.approx((above - below) / (2 * h), rel=1e-3)


def test_image_positions_count(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    seen = ModelInput((ImageChunk(b"", "png", 2), EncodedTextChunk(np.asarray([3]))))
    inputs = {"target_tokens": np.asarray([0, 0, 4]), "weights": np.asarray([0, 0, 1], np.float32)}
    result = client.await_(client.forward_backward(session, [Datum(seen, inputs)]))
    assert result.outputs[0]["logprobs"].shape == (3,)
    assert result.loss == -result.outputs[0]["logprobs"][2]


def test_a_custom_loss_runs_on_it(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)

    def fn(datums: Any, logprobs: Any) -> tuple[float, list[Any], dict[str, float]]:
        return sum(float((p**2).sum()) for p in logprobs), [2 * p for p in logprobs], {}

    future, loss, _ = custom_loss(client, session, BATCH, fn)
    client.await_(future)
    assert loss > 0
    client.await_(client.optim_step(session, 1e-3))


# --- gradients ---


def test_a_step_clears_the_gradient(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    step(client, session)
    with pytest.raises(InvalidInput, match="forward_backward"):
        client.optim_step(session, 1e-3)


def test_a_learning_rate_of_zero_leaves_the_weights_but_not_the_moments(
    client: TrainingClient,
) -> None:
    session = client.start_session(CONFIG)
    before, _ = step(client, session, learning_rate=0.0)
    assert client.await_(client.forward(session, BATCH)).loss == before
    client.forward_backward(session, BATCH)
    result = client.await_(client.optim_step(session, 1e-3, AdamParams(grad_clip_norm=1.0)))
    assert result.metrics["optimizer_steps"] == 2
    assert client.await_(client.forward(session, BATCH)).loss != before


@pytest.mark.parametrize("learning_rate", [-1.0, math.nan, math.inf])
def test_a_learning_rate_that_is_not_a_rate_is_invalid(
    client: TrainingClient, learning_rate: float
) -> None:
    session = client.start_session(CONFIG)
    client.forward_backward(session, BATCH)
    with pytest.raises(InvalidInput, match="learning_rate"):
        client.optim_step(session, learning_rate)
    client.await_(client.optim_step(session, 1e-3))


def test_a_gradient_that_is_not_finite_fails_the_step_and_leaves_the_weights(
    client: TrainingClient,
) -> None:
    session = client.start_session(CONFIG)
    before = client.await_(client.forward(session, BATCH)).loss
    reference = client.save_checkpoint(session, "before")
    exploding = datum([1, 2], logprobs=[-1e4], advantages=[1.0])
    client.forward_backward(session, [exploding], "importance_sampling")
    with pytest.raises(AdapterError, match="not finite"):
        client.await_(client.optim_step(session, 1e-3))
    assert session.state.weights.steps == 0
    with pytest.raises(SessionFailed):
        client.forward(session, BATCH)
    client.load_checkpoint(session, reference)
    assert client.await_(client.forward(session, BATCH)).loss == before


# --- time and order ---


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (training_client, conditions):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_submitting_takes_no_time_and_operations_run_one_after_the_other(clock: Clock) -> None:
    client = noop(latency_scale=1)
    session = client.start_session(CONFIG)
    started = clock.now
    loss, norm = client.forward_backward(session, BATCH), client.optim_step(session, 1e-3)
    assert clock.now == started
    client.await_(norm)
    both = training_client._FORWARD_BACKWARD_LATENCY + training_client._OPTIM_LATENCY
    assert clock.now == pytest.approx(started + both)
    client.await_(loss)
    assert clock.now == pytest.approx(started + both)


def test_a_timeout_leaves_the_operation_running(clock: Clock) -> None:
    client = noop(latency_scale=1000)
    future = client.forward(client.start_session(CONFIG), BATCH)
    started = clock.now
    with pytest.raises(AdapterTimeout):
        client.await_(future, timeout=0.25)
    assert clock.now == pytest.approx(started + 0.25)
    with pytest.raises(AdapterTimeout):
        client.await_(future, timeout=0)
    assert client.await_(future, timeout=1.0).loss > 0


def test_saving_waits_for_the_queue(clock: Clock) -> None:
    client = noop(latency_scale=1)
    session = client.start_session(CONFIG)
    last = [client.forward(session, BATCH) for _ in range(100)][-1]
    client.save_checkpoint(session, "x")
    assert client.await_(last, timeout=0).loss


def test_realistic_latency_lets_a_thousand_steps_end_in_seconds(clock: Clock) -> None:
    client = noop(latency_scale=1)
    steps(client, client.start_session(CONFIG), 1000)
    assert 1 < clock.now < 10


# --- failure ---


def test_a_failed_operation_fails_its_session_until_a_checkpoint_is_loaded() -> None:
    flaky = noop(failure_rate=0.3, seed=3)
    session = flaky.start_session(CONFIG)
    reference = flaky.save_checkpoint(session, "start")
    done, failures = 0, 0
    while done < 20:
        try:
            step(flaky, session)
            done += 1
        except (Unavailable, SessionFailed):
            for use in (
                lambda: flaky.forward_backward(session, BATCH),
                lambda: flaky.forward(session, BATCH),
                lambda: flaky.optim_step(session, 1e-3),
                lambda: flaky.save_checkpoint(session, "x"),
                lambda: flaky.save_weights_for_sampler(session),
            ):
                with pytest.raises(SessionFailed, match="load a checkpoint"):
                    use()
            failures += 1
            flaky.load_checkpoint(session, reference)
            reference = flaky.save_checkpoint(session, "next")
    assert failures > 5


def test_failures_are_seeded() -> None:
    def outcomes(seed: int) -> list[bool]:
        client = noop(failure_rate=0.5, seed=seed)
        found = []
        for _ in range(30):
            future = client.forward(client.start_session(CONFIG), BATCH)
            try:
                client.await_(future)
                found.append(True)
            except Unavailable:
                found.append(False)
        return found

    assert outcomes(1) == outcomes(1) != outcomes(2)


def test_what_was_queued_behind_a_failure_fails_too(clock: Clock) -> None:
    client = noop(latency_scale=1, failure_rate=1)
    session = client.start_session(CONFIG)
    failing = client.forward_backward(session, BATCH)
    behind = client.optim_step(session, 1e-3)  # not known yet
    with pytest.raises(Unavailable) as first:
        client.await_(failing)
    assert not first.value.retryable
    with pytest.raises(Unavailable):
        client.await_(failing)
    with pytest.raises(SessionFailed):
        client.await_(behind)
    with pytest.raises(SessionFailed):
        client.forward(session, BATCH)
    client.close_session(session)


# --- checkpoints ---


def test_training_continues_bit_equal_from_a_checkpoint(client: TrainingClient) -> None:
    session = client.start_session(SessionConfig("m", seed=7))
    steps(client, session, 5)
    reference = client.save_checkpoint(session, "at 5")
    rest = steps(client, session, 5)
    client.load_checkpoint(session, reference)
    assert steps(client, session, 5) == rest
    resumed = client.start_session(
        SessionConfig("m", from_checkpoint=reference, with_optimizer=True)
    )
    assert steps(client, resumed, 5) == rest
    assert resumed.state == session.state


def test_without_the_optimizer_its_state_starts_afresh(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    steps(client, session, 5)
    reference = client.save_checkpoint(session, "x")
    fresh = client.start_session(SessionConfig("m", from_checkpoint=reference))
    client.load_checkpoint(session, reference, with_optimizer=False)
    for each in (session, fresh):
        client.forward_backward(each, BATCH)
        assert client.await_(client.optim_step(each, 1e-3)).metrics["optimizer_steps"] == 1
        assert each.state.weights.steps == 6


def test_pending_gradients_cannot_be_saved_and_are_dropped_by_loading(
    client: TrainingClient,
) -> None:
    session = client.start_session(CONFIG)
    reference = client.save_checkpoint(session, "x")
    client.forward_backward(session, BATCH)
    with pytest.raises(InvalidInput, match="pending"):
        client.save_checkpoint(session, "y")
    assert client.list_checkpoints() == [reference]
    client.load_checkpoint(session, reference)
    with pytest.raises(InvalidInput, match="no gradient"):
        client.optim_step(session, 1e-3)


def test_an_unknown_checkpoint_is_not_found_and_changes_nothing(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    client.forward_backward(session, BATCH)
    with pytest.raises(NotFound, match="gone"):
        client.load_checkpoint(session, "gone")
    client.await_(client.optim_step(session, 1e-3))
    with pytest.raises(NotFound, match="gone"):
        client.start_session(SessionConfig("m", from_checkpoint="gone"))


def test_two_kitchens_share_no_checkpoints(client: TrainingClient) -> None:
    client.save_checkpoint(client.start_session(CONFIG), "x")
    assert noop().list_checkpoints() == []


# --- weights for the sampler ---


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    quiet: Mapping[str, Any] = {"latency_scale": 0}
    with Kitchen(
        adapters={
            "training_client": {"use": training_client, **quiet},
            "completer": {"use": completer, **quiet},
        }
    ) as kitchen:
        yield kitchen


def test_the_completer_s_logprobs_equal_the_trainer_s(kitchen: Kitchen) -> None:
    client, tokens = kitchen.training_client, [70, 71, 72]
    session = client.start_session(SessionConfig("m & m", seed=5))
    steps(client, session, 3)
    reference = client.save_weights_for_sampler(session, "after 3 steps")
    params = SamplingParams(20, seed=0, logprobs=True, model=reference)
    completion = kitchen.completer.complete(tokens, params)
    assert completion.tokens is not None
    sequence = [*tokens, *completion.tokens.tolist()]
    forward = client.await_(client.forward(session, [datum(sequence)])).outputs[0]["logprobs"]
    np.testing.assert_array_equal(completion.logprobs, forward[len(tokens) - 1 :])
    (scored,) = kitchen.completer.score([sequence], reference)
    np.testing.assert_array_equal(scored, forward)


def test_ephemeral_weights_are_good_until_the_next_ones_or_the_session_s_end(
    kitchen: Kitchen,
) -> None:
    client = kitchen.training_client
    session = client.start_session(CONFIG)

    def sample(model: str) -> None:
        kitchen.completer.complete([1], SamplingParams(1, model=model))

    first = client.save_weights_for_sampler(session)
    sample(first)
    named = client.save_weights_for_sampler(session, "kept")
    sample(first)
    second = client.save_weights_for_sampler(session)
    with pytest.raises(NotFound, match="ephemeral"):
        sample(first)
    sample(second)
    client.close_session(session)
    with pytest.raises(NotFound, match="ephemeral"):
        sample(second)
    sample(named)
