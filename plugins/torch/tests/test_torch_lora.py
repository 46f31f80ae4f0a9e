import numpy as np
import pytest
import safetensors.torch
import torch
from crucible_kitchen import InvalidInput, LoraConfig, SessionConfig, Unsupported


def lora(model="tiny", seed=0, **config):
    return SessionConfig(model, seed=seed, lora=LoraConfig(**{"rank": 2, **config}))


def train(client, session, datums, steps=3):
    for _ in range(steps):
        client.forward_backward(session, datums)
        client.await_(client.optim_step(session, 1e-1))


def logprobs(client, session, datums):
    return np.concatenate(
        [o["logprobs"] for o in client.await_(client.forward(session, datums)).outputs]
    )


def adapted(session):
    return {name.split(".lora_")[0].split(".")[-1] for name in session._engine.weights}


def test_an_update_starts_at_zero_and_trains_alone(client, datums):
    session, plain = client.start_session(lora()), client.start_session(SessionConfig("tiny"))
    assert np.array_equal(logprobs(client, session, datums), logprobs(client, plain, datums))
    base = {
        name: w.clone()
        for name, w in session._engine.model.named_parameters()
        if "lora_" not in name
    }
    first = client.await_(client.forward(session, datums)).loss
    train(client, session, datums)
    assert client.await_(client.forward(session, datums)).loss < first
    for name, weight in session._engine.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(weight, base[name])


@pytest.mark.parametrize(
    ("model", "targets", "names"),
    [
        ("tiny", ("attn",), {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("tiny", ("mlp",), {"gate_proj", "up_proj", "down_proj"}),
        ("tiny", ("unembed",), {"lm_head"}),
        ("gpt2", ("attn", "mlp"), {"c_attn", "c_proj", "c_fc"}),
    ],
)
def test_targets_choose_the_projections(client, datums, model, targets, names):
    session = client.start_session(lora(model, targets=targets))
    assert adapted(session) == names
    train(client, session, datums, steps=1)


def test_rank_and_alpha_are_those_of_the_configuration(client):
    session = client.start_session(lora(rank=3, alpha=6.0))
    assert {w.shape[0] for n, w in session._engine.weights.items() if "lora_A" in n} == {3}
    layer = next(m for m in session._engine.model.modules() if hasattr(m, "get_delta_weight"))
    assert set(layer.scaling.values()) == {2.0}


def test_dropout_of_the_update_is_on_in_training_alone(client, datums):
    session = client.start_session(lora(dropout=0.5))
    train(client, session, datums)
    assert np.array_equal(logprobs(client, session, datums), logprobs(client, session, datums))
    losses = [client.await_(client.forward_backward(session, datums)).loss for _ in range(2)]
    assert losses[0] != losses[1]


def test_the_update_is_a_function_of_the_seed(client):
    first, again, other = (client.start_session(lora("deep", seed=s)) for s in (1, 1, 2))
    for name, weight in first._engine.weights.items():
        assert torch.equal(weight, again._engine.weights[name])
        if "lora_A" in name:
            assert not torch.equal(weight, other._engine.weights[name])


def test_a_checkpoint_holds_the_update_alone(client, datums, tmp_path):
    session = client.start_session(lora())
    train(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    stored = safetensors.torch.load_file(tmp_path / "ckpt" / reference / "weights.safetensors")
    assert stored.keys() == session._engine.weights.keys()
    assert all("lora_" in name for name in stored)


@pytest.mark.parametrize(
    "other", [lora(seed=1), lora(alpha=1.0), lora("drops", seed=2), SessionConfig("tiny")]
)
def test_an_update_of_other_weights_is_refused(client, other):
    reference = client.save_checkpoint(client.start_session(lora()), "x")
    session = client.start_session(other)
    with pytest.raises(InvalidInput, match="update of other weights"):
        client.load_checkpoint(session, reference)


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
def test_weights_saved_for_sampling_have_the_update_merged(client, completer, datums, model):
    session = client.start_session(lora(model))
    train(client, session, datums)
    expected = logprobs(client, session, datums)
    rows = [[*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"][-1])] for d in datums]
    for name in (None, "merged"):
        reference = client.save_weights_for_sampler(session, name)
        found = np.concatenate(completer.score(rows, reference))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    train(client, session, datums, steps=1)  # the session itself still has its update apart


def test_an_unknown_target_is_unsupported(client):
    with pytest.raises(Unsupported, match=r"'attention'.*did you mean 'attn'\?.*q_proj, up_proj"):
        client.start_session(lora(targets=("attention",)))


def test_a_tied_unembedding_cannot_be_adapted(client):
    with pytest.raises(Unsupported, match="one matrix"):
        client.start_session(lora("gpt2", targets=("unembed",)))


def test_no_targets_are_invalid_input(client):
    with pytest.raises(InvalidInput, match="no such projections"):
        client.start_session(lora(targets=()))
