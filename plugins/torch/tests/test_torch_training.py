"""The promises of the training client."""

import gc
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterTimeout,
    Datum,
    EncodedTextChunk,
    ImageChunk,
    InvalidInput,
    ModelInput,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    Unsupported,
)

TINY = SessionConfig("tiny")
ADAM = AdamParams()
EVAL = SessionConfig("tiny", trainable=False)


def logprobs(client, session, datums):
    """What the model says, which is a function of all its weights."""
    plain = [
        Datum(d.model_input, {"target_tokens": d.loss_fn_inputs["target_tokens"]}) for d in datums
    ]
    return [output["logprobs"] for output in client.await_(client.forward(session, plain)).outputs]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def train(client, session, datums, steps=1, rate=1e-2, adam=ADAM):
    for _ in range(steps):
        loss = client.forward_backward(session, datums)
        step = client.optim_step(session, rate, adam)
        client.await_(loss)
        result = client.await_(step)
    return result


class Gate:
    """A model that waits inside its forward pass."""

    def __init__(self, session):
        self.entered, self.open = threading.Event(), threading.Event()
        session.engine.model.register_forward_pre_hook(self._wait)

    def _wait(self, module, args):
        self.entered.set()
        assert self.open.wait(30)


@pytest.fixture
def break_next_pass():
    def break_it(session):
        def fail(module, args):
            handle.remove()
            raise RuntimeError("out of memory")

        handle = session.engine.model.register_forward_pre_hook(fail)

    return break_it


# --- results ---


def test_logprobs_are_those_of_each_row_alone_in_datum_order(client, datums):
    session = client.start_session(TINY)
    result = client.await_(client.forward_backward(session, datums))
    model = session.engine.model
    for datum, output in zip(datums, result.outputs, strict=True):
        ids = torch.tensor([datum.model_input.to_ints()])
        with torch.no_grad():
            table = model(input_ids=ids).logits[0].log_softmax(-1).numpy()
        targets = datum.loss_fn_inputs["target_tokens"]
        assert output["logprobs"].dtype == np.float32
        assert output["logprobs"].shape == targets.shape
        np.testing.assert_allclose(
            output["logprobs"], table[np.arange(len(targets)), targets], atol=1e-5
        )


def test_loss_is_the_sum_over_tokens(client, datums):
    session = client.start_session(TINY)
    result = client.await_(client.forward_backward(session, datums))
    assert result.loss == pytest.approx(-sum(o["logprobs"].sum() for o in result.outputs), rel=1e-6)


def test_pieces_of_any_size_give_the_same_result(make_kitchen, datums):
    outcomes = []
    for budget in (1, 20, 4096):
        client = make_kitchen(micro_batch_tokens=budget).training_client
        session = client.start_session(TINY)
        outcome = client.await_(client.forward_backward(session, datums))
        outcomes.append((outcome, client.await_(client.optim_step(session, 1e-2)).grad_norm))
    whole, norm = outcomes[-1]
    for outcome, piecewise_norm in outcomes[:-1]:
        assert outcome.loss == pytest.approx(whole.loss, rel=1e-5)
        assert piecewise_norm == pytest.approx(norm, rel=1e-5)
        for left, right in zip(outcome.outputs, whole.outputs, strict=True):
            np.testing.assert_allclose(left["logprobs"], right["logprobs"], atol=1e-5)


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
def test_two_batches_accumulate_to_one(client, datums, model):
    together, apart = (client.start_session(SessionConfig(model)) for _ in range(2))
    client.forward_backward(together, datums)
    for part in (datums[:3], datums[3:]):
        client.forward_backward(apart, part)
    norms = [client.await_(client.optim_step(s, 1e-3)).grad_norm for s in (together, apart)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for left, right in zip(
        logprobs(client, together, datums), logprobs(client, apart, datums), strict=True
    ):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_tokens_in_several_chunks_are_one_sequence(client, make_datum):
    session = client.start_session(TINY)
    whole = make_datum([1, 2, 3, 4, 5])
    chunks = ModelInput((EncodedTextChunk([1]), EncodedTextChunk([2, 3, 4])))
    assert same(
        logprobs(client, session, [whole]),
        logprobs(client, session, [replace(whole, model_input=chunks)]),
    )


def test_forward_takes_missing_weights_as_ones_and_leaves_no_gradient(client, datums):
    session = client.start_session(TINY)
    plain = [
        Datum(d.model_input, {"target_tokens": d.loss_fn_inputs["target_tokens"]}) for d in datums
    ]
    result = client.await_(client.forward(session, plain))
    assert result.loss == pytest.approx(-sum(o["logprobs"].sum() for o in result.outputs), rel=1e-6)
    with pytest.raises(InvalidInput, match="forward_backward"):
        client.optim_step(session, 1e-2)


def test_forward_has_no_dropout_and_forward_backward_has(client, datums):
    session = client.start_session(SessionConfig("drops"))
    before = logprobs(client, session, datums)
    losses = [client.await_(client.forward_backward(session, datums)).loss for _ in range(2)]
    assert losses[0] != losses[1]
    assert same(logprobs(client, session, datums), before)


def test_an_evaluation_in_between_does_not_change_the_dropout(client, datums):
    first, second = (client.start_session(SessionConfig("drops")) for _ in range(2))
    client.await_(client.forward(second, datums))
    losses = [client.await_(client.forward_backward(s, datums)).loss for s in (first, second)]
    assert losses[0] == losses[1]


def test_dropout_is_a_function_of_the_seed_alone(client, datums):
    torch.manual_seed(1)  # the process's own generator has no say, and is left alone
    before = torch.get_rng_state()
    sessions = [client.start_session(SessionConfig("drops", seed=seed)) for seed in (5, 5, -6)]
    losses = [client.await_(client.forward_backward(s, datums)).loss for s in sessions]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_new_weights_are_a_function_of_the_seed(client, datums):
    first, again, other = (client.start_session(SessionConfig("tiny", seed=s)) for s in (1, 1, 2))
    assert same(logprobs(client, first, datums), logprobs(client, again, datums))
    assert not same(logprobs(client, first, datums), logprobs(client, other, datums))


# --- the optimizer ---


def test_grad_norm_is_the_norm_before_clipping_and_clipping_scales_the_step(client, datums):
    session = client.start_session(TINY)
    client.forward_backward(session, datums)
    plain = client.await_(client.optim_step(session, 0.0)).grad_norm
    client.forward_backward(session, datums)
    clipped = client.await_(client.optim_step(session, 0.0, AdamParams(grad_clip_norm=1.0)))
    assert clipped.grad_norm == pytest.approx(plain, rel=1e-6)
    moments = session.engine.moments()  # the second step's gradient has norm 1
    mean = [v for k, v in moments.items() if k.startswith("exp_avg.")]
    first = 0.9 * 0.1 * plain  # both gradients point the same way, since the rate was 0
    norm = torch.stack([m.square().sum() for m in mean]).sum().sqrt().item()
    assert norm == pytest.approx(first + 0.1, rel=1e-4)


def test_a_learning_rate_of_zero_leaves_the_weights_but_not_the_moments(client, datums):
    session = client.start_session(TINY)
    before = logprobs(client, session, datums)
    train(client, session, datums, rate=0.0, adam=AdamParams(weight_decay=0.1))
    assert same(logprobs(client, session, datums), before)
    assert any(m.abs().sum() > 0 for m in session.engine.moments().values())


def test_weight_decay_is_decoupled_from_the_gradient(client, make_datum):
    session = client.start_session(TINY)
    zero = [make_datum([1, 2, 3], weights=[0.0, 0.0])]
    before = {name: w.detach().clone() for name, w in session.engine.weights.items()}
    train(client, session, zero, rate=0.5, adam=AdamParams(weight_decay=0.1))
    for name, weight in session.engine.weights.items():
        torch.testing.assert_close(weight.detach(), before[name] * (1 - 0.5 * 0.1))


def test_every_adam_setting_is_used_at_the_step_that_names_it(client, datums):
    session = client.start_session(TINY)
    settings = [AdamParams(0.8, 0.9, 1e-6, 0.1, 2.0), AdamParams(0.5, 0.99, 1e-3, 0.0, 0.0)]
    reference = {n: w.detach().clone() for n, w in session.engine.weights.items()}
    first = {n: torch.zeros_like(w) for n, w in reference.items()}
    second = {n: torch.zeros_like(w) for n, w in reference.items()}
    for t, adam in enumerate(settings, 1):
        client.await_(client.forward_backward(session, datums))
        grads = {n: w.grad.clone() for n, w in session.engine.weights.items()}
        norm = client.await_(client.optim_step(session, 0.01, adam)).grad_norm
        scale = min(1.0, adam.grad_clip_norm / (norm + 1e-6)) if adam.grad_clip_norm else 1.0
        for n, grad in grads.items():
            first[n] = adam.beta1 * first[n] + (1 - adam.beta1) * grad * scale
            second[n] = adam.beta2 * second[n] + (1 - adam.beta2) * (grad * scale) ** 2
            # torch.optim.AdamW: each step corrects the bias with its own betas
            direction = first[n] / (1 - adam.beta1**t)
            size = (second[n] / (1 - adam.beta2**t)).sqrt() + adam.eps
            reference[n] = reference[n] * (1 - 0.01 * adam.weight_decay) - 0.01 * direction / size
    for name, weight in session.engine.weights.items():
        torch.testing.assert_close(weight.detach(), reference[name], atol=2e-6, rtol=1e-5)


def test_a_step_clears_the_gradient(client, datums):
    session = client.start_session(TINY)
    train(client, session, datums)
    with pytest.raises(InvalidInput, match="forward_backward"):
        client.optim_step(session, 1e-2)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1e-3])
def test_a_learning_rate_out_of_range_is_refused_at_submission(client, datums, rate):
    session = client.start_session(TINY)
    client.forward_backward(session, datums)
    with pytest.raises(InvalidInput, match="learning_rate"):
        client.optim_step(session, rate)
    client.await_(client.optim_step(session, 1e-3))  # nothing was queued, nothing has failed


def test_a_gradient_that_is_not_finite_fails_the_step_and_leaves_the_weights(client, make_datum):
    session = client.start_session(TINY)
    before = {name: w.detach().clone() for name, w in session.engine.weights.items()}
    client.forward_backward(session, [make_datum([1, 2, 3], weights=[3e38, 3e38])])
    step = client.optim_step(session, 1e-2)
    with pytest.raises(AdapterError, match="not finite"):
        client.await_(step)
    for name, weight in session.engine.weights.items():
        assert torch.equal(weight, before[name])


def test_a_failed_step_leaves_the_moments(client, datums, make_datum):
    session = client.start_session(TINY)
    train(client, session, datums)
    before = {name: moment.clone() for name, moment in session.engine.moments().items()}
    client.forward_backward(session, [make_datum([1, 2, 3], weights=[3e38, 3e38])])
    with pytest.raises(AdapterError, match="not finite"):
        client.await_(client.optim_step(session, 1e-2))
    for name, moment in session.engine.moments().items():
        assert torch.equal(moment, before[name])


# --- futures ---


def test_a_call_returns_before_the_work_is_done(client, datums):
    session = client.start_session(TINY)
    gate = Gate(session)
    future = client.forward_backward(session, datums)
    assert gate.entered.wait(30)
    with pytest.raises(AdapterTimeout):
        client.await_(future, timeout=0.01)
    gate.open.set()
    assert client.await_(future).loss > 0  # the timeout left it running


def test_a_call_returns_at_once_while_another_thread_saves(client, datums):
    session = client.start_session(TINY)
    gate = Gate(session)
    client.forward_backward(session, datums)
    assert gate.entered.wait(30)
    client.optim_step(session, 1e-2)
    saving = threading.Thread(target=client.save_checkpoint, args=(session, "x"))
    saving.start()
    while session.worker._jobs.qsize() < 2:  # the step and the save, behind the gate
        saving.join(0.001)
    calling = threading.Thread(target=client.forward_backward, args=(session, datums))
    calling.start()
    calling.join(10)
    returned = not calling.is_alive()
    gate.open.set()
    saving.join()
    calling.join()
    assert returned


def test_no_operation_waits_for_another_when_it_is_submitted(client, datums):
    session = client.start_session(TINY)
    gate = Gate(session)
    futures = []

    def submit():
        futures.append(client.forward(session, datums))
        futures.append(client.forward_backward(session, datums))
        futures.append(client.optim_step(session, 1e-2))

    calling = threading.Thread(target=submit)
    calling.start()
    calling.join(10)
    assert len(futures) == 3
    gate.open.set()
    for future in futures:
        client.await_(future)


def test_a_result_may_be_asked_for_again_from_another_thread(client, datums):
    session = client.start_session(TINY)
    future = client.forward_backward(session, datums)
    first = client.await_(future)
    found = []
    thread = threading.Thread(target=lambda: found.append(client.await_(future)))
    thread.start()
    thread.join()
    assert found == [first]


def test_an_operation_cannot_be_cancelled(client, datums):
    session = client.start_session(TINY)
    gate = Gate(session)
    futures = [client.forward_backward(session, datums), client.optim_step(session, 1e-2)]
    assert not any(future.cancel() for future in futures)
    gate.open.set()
    assert client.await_(futures[1]).grad_norm > 0


def test_arrays_may_be_reused_as_soon_as_the_call_returns(client, make_datum):
    session, other = client.start_session(TINY), client.start_session(TINY)
    tokens, weights = np.array([1, 2, 3, 4]), np.ones(4, np.float32)
    targets = np.array([2, 3, 4, 5])
    datum = Datum(ModelInput.from_ints(tokens), {"target_tokens": targets, "weights": weights})
    expected = client.await_(client.forward_backward(other, [datum])).loss
    gate = Gate(session)
    future = client.forward_backward(session, [datum])
    tokens[:], targets[:], weights[:] = 0, 0, 0
    gate.open.set()
    assert client.await_(future).loss == expected


def test_operations_run_in_the_order_of_submission(client, datums):
    session, waiting = client.start_session(TINY), client.start_session(TINY)
    futures = []
    for _ in range(3):  # submit everything, then wait
        futures += [client.forward_backward(session, datums), client.optim_step(session, 1e-2)]
    losses = [client.await_(f).loss for f in futures[::2]]
    expected = []
    for _ in range(3):
        expected.append(client.await_(client.forward_backward(waiting, datums)).loss)
        client.await_(client.optim_step(waiting, 1e-2))
    assert losses == expected
    assert losses[0] > losses[1] > losses[2]


def test_two_sessions_train_at_once_without_touching_each_other(client, datums):
    def losses(session):
        found = []
        for _ in range(5):
            future = client.forward_backward(session, datums)
            client.await_(client.optim_step(session, 1e-2))
            found.append(client.await_(future).loss)
        return found

    configs = [SessionConfig("drops", seed=seed) for seed in (1, 2)]
    alone = [losses(client.start_session(config)) for config in configs]
    sessions = [client.start_session(config) for config in configs]
    together = [[], []]
    threads = [
        threading.Thread(target=lambda i=i: together[i].extend(losses(sessions[i])))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


# --- bad input ---


def bad_datums(make):
    good = make([1, 2, 3])
    inputs = good.loss_fn_inputs
    return {
        "no datums": [],
        "token 257": [make([1, 257, 3])],
        "token -1": [make([1, -1, 3])],
        "the limit is 32": [make([1] * 34)],
        "has shape": [Datum(good.model_input, {**inputs, "weights": np.ones(3, np.float32)})],
        "not finite": [make([1, 2, 3], weights=[np.nan, 0.0])],
        "is int64": [Datum(good.model_input, {**inputs, "weights": np.ones(2, np.int64)})],
        "lacks 'weights'": [Datum(good.model_input, {"target_tokens": inputs["target_tokens"]})],
        "no input 'advantages'": [make([1, 2, 3], weights=[1.0, 1.0], advantages=[1.0, 1.0])],
    }


def test_bad_input_is_refused_at_submission_with_nothing_queued(client, make_datum):
    session = client.start_session(TINY)
    for problem, datums in bad_datums(make_datum).items():
        with pytest.raises(InvalidInput, match=problem):
            client.forward_backward(session, datums)
    with pytest.raises(InvalidInput, match="forward_backward"):
        client.optim_step(session, 1e-2)  # so nothing was queued
    client.await_(client.forward_backward(session, [make_datum([1, 2, 3])]))  # nor has it failed


@pytest.mark.parametrize("name", ["logprobs", "advantages"])
def test_an_input_that_is_not_finite_is_refused_at_submission(client, make_datum, name):
    session = client.start_session(TINY)
    inputs = {"logprobs": [-1.0, -1.0], "advantages": [1.0, 1.0], name: [np.nan, 0.0]}
    with pytest.raises(InvalidInput, match=f"{name} holds a number that is not finite"):
        client.forward_backward(session, [make_datum([1, 2, 3], **inputs)], "ppo")


def test_a_threshold_that_is_not_finite_is_refused_at_submission(client, make_datum):
    session = client.start_session(TINY)
    row = make_datum([1, 2, 3], logprobs=[-1.0, -1.0], advantages=[1.0, 1.0])
    with pytest.raises(InvalidInput, match="not finite"):
        client.forward_backward(session, [row], "ppo", {"clip_high_threshold": float("nan")})


def test_an_unknown_loss_and_an_image_are_unsupported(client, make_datum):
    session = client.start_session(TINY)
    with pytest.raises(Unsupported, match="no loss 'mse'"):
        client.forward_backward(session, [make_datum([1, 2, 3])], "mse")
    image = ModelInput((ImageChunk(b"", "png", 2),))
    with pytest.raises(Unsupported, match="image"):
        client.forward_backward(session, [replace(make_datum([1, 2, 3]), model_input=image)])


def test_max_length_limits_the_input(client, make_datum):
    session = client.start_session(SessionConfig("tiny", max_length=4))
    client.await_(client.forward_backward(session, [make_datum([1] * 5)]))
    with pytest.raises(InvalidInput, match="the limit is 4"):
        client.forward_backward(session, [make_datum([1] * 6)])


def test_max_length_does_not_lift_the_limit_of_the_model(client, make_datum):
    session = client.start_session(SessionConfig("tiny", max_length=100))
    with pytest.raises(InvalidInput, match="the limit is 32"):
        client.forward_backward(session, [make_datum([1] * 34)])


def test_a_session_that_is_not_trainable_evaluates_only(client, datums):
    session = client.start_session(EVAL)
    assert client.await_(client.forward(session, datums)).loss > 0
    with pytest.raises(InvalidInput, match="trainable=False"):
        client.forward_backward(session, datums)
    client.close_session(session)
    with pytest.raises(SessionClosed):
        client.forward_backward(session, datums)


# --- failure ---


def test_after_a_failure_everything_behind_it_and_later_is_refused(client, datums, break_next_pass):
    session = client.start_session(TINY)
    reference = client.save_checkpoint(session, "start")
    before = {name: w.detach().clone() for name, w in session.engine.weights.items()}
    gate = Gate(session)
    client_futures = [client.forward_backward(session, datums)]
    assert gate.entered.wait(30)  # the next pass is behind it
    break_next_pass(session)
    client_futures += [client.forward_backward(session, datums), client.optim_step(session, 1e-2)]
    gate.open.set()
    client.await_(client_futures[0])
    with pytest.raises(AdapterError, match="out of memory") as own:
        client.await_(client_futures[1])
    assert not isinstance(own.value, SessionFailed)
    with pytest.raises(SessionFailed, match="out of memory"):
        client.await_(client_futures[2])
    for call in (
        lambda: client.forward_backward(session, datums),
        lambda: client.forward(session, datums),
        lambda: client.optim_step(session, 1e-2),
        lambda: client.save_checkpoint(session, "x"),
        lambda: client.save_weights_for_sampler(session),
    ):
        with pytest.raises(SessionFailed):
            call()
    for name, weight in session.engine.weights.items():
        assert torch.equal(weight, before[name])  # the step on half a gradient never ran
    client.load_checkpoint(session, reference)
    train(client, session, datums)
    client.close_session(session)


def test_a_failed_session_may_be_closed(client, datums, break_next_pass):
    session = client.start_session(TINY)
    break_next_pass(session)
    client.forward_backward(session, datums)
    client.close_session(session)


def test_closing_twice_is_fine_and_using_after_is_session_closed(client, datums):
    session = client.start_session(TINY)
    done = client.forward_backward(session, datums)
    result = client.await_(done)
    client.close_session(session)
    client.close_session(session)
    for call in (
        lambda: client.forward_backward(session, datums),
        lambda: client.forward(session, datums),
        lambda: client.optim_step(session, 1e-2),
        lambda: client.save_checkpoint(session, "x"),
        lambda: client.load_checkpoint(session, "x"),
        lambda: client.save_weights_for_sampler(session),
    ):
        with pytest.raises(SessionClosed):
            call()
    assert client.await_(done) is result


def test_closing_frees_the_model_though_the_handle_is_kept(client, datums):
    session = client.start_session(TINY)
    train(client, session, datums)
    model = weakref.ref(session.engine.model)
    client.close_session(session)
    gc.collect()
    assert model() is None


def test_closing_drops_what_is_queued(client, datums):
    session = client.start_session(TINY)
    gate = Gate(session)
    running = client.forward_backward(session, datums)
    queued = client.forward_backward(session, datums)
    assert gate.entered.wait(30)
    closing = threading.Thread(target=client.close_session, args=(session,))
    closing.start()
    while not session.worker._closed:
        closing.join(0.001)
    gate.open.set()
    closing.join()
    assert client.await_(running).loss > 0
    with pytest.raises(SessionClosed):
        client.await_(queued)


def test_closing_the_kitchen_closes_its_sessions(make_kitchen, datums):
    kitchen = make_kitchen()
    session = kitchen.training_client.start_session(TINY)
    kitchen.close()
    assert not session.worker._thread.is_alive()
    with pytest.raises(SessionClosed):
        kitchen.training_client.forward(session, datums)


def test_a_process_that_forgets_its_session_exits_in_peace(tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import MODELS
from crucible_adapter_torch import training_client as adapter
from crucible_kitchen import Datum, Kitchen, ModelInput, SessionConfig
import numpy as np
options = {"use": adapter, "models": MODELS, "device": "cpu", "deterministic": True}
client = Kitchen(adapters={"training_client": options}).training_client
session = client.start_session(SessionConfig("deep"))
inputs = {"target_tokens": np.arange(30), "weights": np.ones(30, np.float32)}
for _ in range(100):
    future = client.forward_backward(session, [Datum(ModelInput.from_ints(range(30)), inputs)] * 9)
client.forward(session, [Datum(ModelInput.from_ints(range(30)), inputs)])
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(("asked", "told"), [(None, 32), (20, 20), (1000, 32)])
def test_the_tokenizer_tells_the_longest_input(client, asked, told):
    session = client.start_session(SessionConfig("tiny", max_length=asked))
    assert client.helper("get_tokenizer")(session).model_max_length == told
