"""Sessions that several processes share: the same numbers as in one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from crucible_adapter_torch import published
from crucible_adapter_torch.distributed import Rank, Replica
from crucible_adapter_torch.options import TrainingClientOptions
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    AdamParams,
    Datum,
    FloatArray,
    InvalidInput,
    LoraConfig,
    NotFound,
    SessionConfig,
    TrainingClient,
)
from ranks import (
    Found,
    Plan,
    Ranks,
    facts_of,
    fail_a_step,
    follow,
    follow_with_spares,
    logprobs_in_training,
    refused,
    refused_here,
)
from safetensors.torch import load_file
from tiny_torch import LLAMA, MODELS, MakeKitchen, datum

CONFIGS = {
    "full": SessionConfig("deep", seed=3),
    "lora": SessionConfig("deep", seed=3, lora=LoraConfig(rank=2)),
}
KINDS = {
    **MODELS,
    "wide": {**LLAMA, "vocab_size": 60_000},
    "experts": {
        **LLAMA,
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 2,
    },
}
STRATEGIES = ("ddp", "fsdp")
COUNTS = (2, 3)
STEPS = 20
RATE = 1e-3
"""Tiny models with low-rank updates diverge at 1e-2, and rounding grows with that."""
ADAM = AdamParams(grad_clip_norm=5.0, weight_decay=0.01)
BUDGET = 24
"""Tokens of a micro-batch: the pieces of a batch differ in number from rank to rank."""

Batches: TypeAlias = Sequence[Sequence[Sequence[Datum]]]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    made = Ranks(max(COUNTS))
    yield made
    made.close()


@pytest.fixture
def opts(ckpt: Path) -> TrainingClientOptions:
    return TrainingClientOptions(
        checkpoint_dir=ckpt, models=MODELS, device="cpu", micro_batch_tokens=BUDGET
    )


@pytest.fixture
def client(make_kitchen: MakeKitchen) -> TrainingClient:
    return make_kitchen(micro_batch_tokens=BUDGET).training_client


def batches_of(steps: int) -> Batches:
    """Return batches of 1 to 8 rows, one or two a step; with three ranks, some have none."""
    rng = np.random.default_rng(1)

    def row() -> Datum:
        return datum(rng.integers(0, 256, rng.integers(4, 12)))

    return [
        [[row() for _ in range(rng.integers(1, 9))] for _ in range(1 + step % 2)]
        for step in range(steps)
    ]


def in_one(
    client: TrainingClient, session: Any, batches: Batches, adam: AdamParams = ADAM
) -> tuple[list[float], list[float]]:
    """Take steps in a session of one process; return the losses and the norms."""
    losses, norms = [], []
    for step in batches:
        results = [client.await_(client.forward_backward(session, batch)) for batch in step]
        losses.append(sum(result.loss for result in results))
        norm = client.await_(client.optim_step(session, RATE, adam)).grad_norm
        assert norm is not None
        norms.append(norm)
    return losses, norms


def losses_of(found: Sequence[Found]) -> FloatArray:
    losses: FloatArray = np.sum([each.losses for each in found], 0)
    return losses


# --- the same numbers ---


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_losses_and_norms_of_twenty_steps_are_those_of_one_process(
    client: TrainingClient,
    opts: TrainingClientOptions,
    ranks: Ranks,
    kind: str,
    strategy: str,
    count: int,
) -> None:
    batches = batches_of(STEPS)
    session = client.start_session(CONFIGS[kind])
    losses, norms = in_one(client, session, batches)
    found = ranks.run(count, follow, Plan(opts, CONFIGS[kind], strategy, batches, ADAM, RATE))
    np.testing.assert_allclose(losses_of(found), losses, rtol=1e-5)
    for each in found:
        np.testing.assert_allclose(each.norms, norms, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("gpt2", {}),  # one matrix to embed and unembed; its projections are transposed
        ("gemma", {}),
        ("wide", {}),  # so many logits that they are made where a target counts alone
        ("experts", {}),
        ("deep", {"gradient_checkpointing": True}),
    ],
)
def test_all_kinds_of_models_are_divided(
    make_kitchen: MakeKitchen,
    opts: TrainingClientOptions,
    ranks: Ranks,
    model: str,
    options: Mapping[str, Any],
) -> None:
    check_few_steps(make_kitchen, opts, ranks, SessionConfig(model), options)


@pytest.mark.parametrize(
    ("model", "targets", "options"),
    [
        ("deep", ("attn", "mlp"), {"base_dtype": "bfloat16"}),
        ("deep", ("attn", "mlp"), {"base_dtype": "int8"}),
        ("deep", ("attn", "mlp"), {"base_dtype": "nf4"}),
        ("deep", ("q_proj", "unembed"), {"gradient_checkpointing": True}),
        ("wide", ("mlp",), {}),
        ("experts", ("attn", "mlp"), {}),
    ],
)
def test_all_kinds_of_updates_are_divided(
    make_kitchen: MakeKitchen,
    opts: TrainingClientOptions,
    ranks: Ranks,
    model: str,
    targets: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    config = SessionConfig(model, lora=LoraConfig(rank=2, targets=targets))
    check_few_steps(make_kitchen, opts, ranks, config, options)


def check_few_steps(
    make_kitchen: MakeKitchen,
    opts: TrainingClientOptions,
    ranks: Ranks,
    config: SessionConfig,
    options: Mapping[str, Any],
) -> None:
    """Check three steps of two ranks against one process, and the exports after them."""
    batches = batches_of(3)
    client = make_kitchen(models=KINDS, micro_batch_tokens=BUDGET, **options).training_client
    session = client.start_session(config)
    losses, norms = in_one(client, session, batches)
    exported = weights_in(client.save_weights_for_sampler(session, "one"))
    opts = TrainingClientOptions(**{**dict(opts), "models": KINDS, **options})
    plan = Plan(opts, config, "fsdp", batches, ADAM, RATE, outputs=["weights"])
    first, second = found = ranks.run(2, follow, plan)
    np.testing.assert_allclose(losses_of(found), losses, rtol=1e-5)
    np.testing.assert_allclose(first.norms, norms, rtol=1e-4)
    for name, weight in weights_in(first.outputs["weights"]).items():
        assert torch.allclose(weight, exported.pop(name), rtol=0, atol=1e-4), name
    assert not exported
    assert second.outputs["weights"] is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("loss_fn", LOSS_FUNCTIONS)
def test_every_loss_gives_its_sums_and_log_probabilities_in_the_order_of_the_datums(
    client: TrainingClient,
    opts: TrainingClientOptions,
    ranks: Ranks,
    loss_fn: str,
    strategy: str,
) -> None:
    rng = np.random.default_rng(2)
    names = LOSS_FUNCTIONS[loss_fn].inputs
    rows = [rng.integers(0, 256, length) for length in (9, 4, 6, 4, 11)]
    batch = [
        datum(row, **{name: rng.normal(-5, 1, len(row) - 1) for name in names}) for row in rows
    ]
    session = client.start_session(CONFIGS["full"])
    one = client.await_(client.forward(session, batch, loss_fn))
    config = LOSS_FUNCTIONS[loss_fn].config
    plan = Plan(opts, CONFIGS["full"], strategy, [[batch]], ADAM, 0, loss_fn, config, score=batch)
    found = ranks.run(2, follow, plan)
    np.testing.assert_allclose(losses_of(found), [one.loss], rtol=1e-5)
    scored = {place: row for each in found for place, row in each.logprobs.items()}
    for place, output in enumerate(one.outputs):
        np.testing.assert_allclose(scored[place], output["logprobs"], atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_rank_drops_other_numbers_and_the_first_those_of_one_process(
    client: TrainingClient, opts: TrainingClientOptions, ranks: Ranks, strategy: str
) -> None:
    config, batch = SessionConfig("drops", seed=3), batches_of(1)[0][0]
    one = client.await_(client.forward_backward(client.start_session(config), batch))
    plan = Plan(opts, config, strategy, [[batch]])
    first, second = ranks.run(2, logprobs_in_training, plan)
    for found, other, output in zip(first, second, one.outputs, strict=True):
        np.testing.assert_allclose(found, output["logprobs"], atol=1e-6)
        assert np.abs(found - other).max() > 1e-5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_weight_that_no_datum_uses_is_left_alone_and_one_used_on_one_rank_is_trained(
    opts: TrainingClientOptions, ranks: Ranks, strategy: str
) -> None:
    # Rows of one length: token 0 is in no datum, nor in padding, but in the passes over nothing
    # that the second rank makes with fsdp.
    rows = [datum([4, 5, 6, 7, 8, 9, 10 + place]) for place in range(8)]
    batches = [[rows], [[datum([4, 255, 6, 7, 8, 9, 10]), *rows]], [rows]]
    adam = AdamParams(weight_decay=0.5)
    plan = Plan(opts, CONFIGS["full"], strategy, batches, adam, 0.1, outputs=["live"])
    [one] = ranks.run(1, follow_with_spares, plan)
    found = ranks.run(2, follow_with_spares, plan)
    expected, weights = one.outputs["live"].arrays, found[0].outputs["live"].arrays
    spares = {name for name in weights if "spare_" in name}
    assert len(spares) == 4
    for name in spares:
        moved = name.endswith("_255")
        assert (np.abs(weights[name] - 1).max() > 0.01) == moved, name
        np.testing.assert_allclose(weights[name], expected[name], rtol=1e-3, err_msg=name)


# --- failures ---


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_gradient_that_is_not_finite_on_one_rank_changes_no_weight_on_any(
    opts: TrainingClientOptions, ranks: Ranks, strategy: str
) -> None:
    batch = [datum([1, 2, 3], weights=[3e38, 3e38]), datum([4, 5, 6]), datum([7, 8])]
    found = ranks.run(2, fail_a_step, Plan(opts, CONFIGS["full"], strategy, [[batch]]))
    for reason, same in found:
        assert reason.startswith("the gradient is not finite")
        assert same


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_one_rank_cannot_load_is_an_error_on_all(
    client: TrainingClient, opts: TrainingClientOptions, ranks: Ranks, strategy: str, tmp_path: Path
) -> None:
    saved = client.save_checkpoint(client.start_session(CONFIGS["full"]), "x")
    there = Plan(opts, CONFIGS["full"], strategy, load=saved)
    blind = replace(there, opts=opts.model_copy(update={"checkpoint_dir": tmp_path / "other"}))
    first, second = ranks.run(2, refused_here, [there, blind])
    assert first == second
    assert first[0] == "NotFound"
    nowhere = replace(there, config=SessionConfig("./missing"))
    first, second = ranks.run(2, refused_here, [nowhere, there])
    assert first == second
    assert first[0] == "NotFound"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_with_other_weights_are_refused(
    opts: TrainingClientOptions, ranks: Ranks, strategy: str
) -> None:
    plan = Plan(opts, CONFIGS["full"], strategy)
    other = replace(plan, config=replace(plan.config, seed=4))
    for kind, reason in ranks.run(3, refused_here, [plan, plan, other]):
        assert kind == "InvalidInput"
        assert reason.startswith("ranks [2] have other weights than rank 0")


@pytest.mark.parametrize(
    ("config", "options", "reason"),
    [
        (CONFIGS["full"], {"optimizer_state": "8bit"}, "strategy fsdp with optimizer_state 8bit"),
        (
            SessionConfig("deep", lora=LoraConfig(rank=2, targets=("unembed",))),
            {},
            "strategy fsdp: only the unembedding is trained",
        ),
        (CONFIGS["full"], {"compile": True}, "strategy fsdp with compile"),
        (
            CONFIGS["full"],
            {"attn_implementation": "flash_attention_2"},
            "strategy fsdp with attn_implementation 'flash_attention_2'",
        ),
    ],
)
def test_what_parts_cannot_do_is_unsupported(
    opts: TrainingClientOptions,
    ranks: Ranks,
    config: SessionConfig,
    options: Mapping[str, Any],
    reason: str,
) -> None:
    plan = Plan(opts.model_copy(update=options), config, "fsdp")
    for kind, why in ranks.run(2, refused, plan):
        assert kind == "Unsupported"
        assert why.startswith(reason)


# --- state ---


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_checkpoint_of_any_is_continued_by_any_other(
    client: TrainingClient, opts: TrainingClientOptions, ranks: Ranks, kind: str
) -> None:
    batches = batches_of(12)
    losses, norms = in_one(client, client.start_session(CONFIGS[kind]), batches)
    session = client.start_session(CONFIGS[kind])
    found = [in_one(client, session, batches[:2])]
    saved = client.save_checkpoint(session, "one")
    others = [("ddp", 3), ("fsdp", 3), ("fsdp", 2), ("ddp", 2)]
    for place, (strategy, count) in enumerate(others, 1):
        steps = batches[2 * place : 2 * place + 2]
        plan = Plan(opts, CONFIGS[kind], strategy, steps, ADAM, RATE, load=saved)
        first, *rest = ranks.run(count, follow, replace(plan, outputs=["checkpoint"]))
        assert all(each.outputs["checkpoint"] is None for each in rest)
        saved = first.outputs["checkpoint"]
        found.append((list(losses_of([first, *rest])), first.norms))
    client.load_checkpoint(session, saved)
    found.append(in_one(client, session, batches[10:]))
    np.testing.assert_allclose([loss for part, _ in found for loss in part], losses, rtol=1e-5)
    np.testing.assert_allclose([norm for _, part in found for norm in part], norms, rtol=1e-4)


@pytest.mark.parametrize(("strategy", "count"), [("ddp", 2), ("fsdp", 2), ("fsdp", 3)])
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_loaded_and_saved_again_is_the_same_to_the_bit(
    client: TrainingClient,
    opts: TrainingClientOptions,
    ranks: Ranks,
    kind: str,
    strategy: str,
    count: int,
) -> None:
    session = client.start_session(CONFIGS[kind])
    in_one(client, session, batches_of(2))
    saved = client.save_checkpoint(session, "one")
    plan = Plan(opts, CONFIGS[kind], strategy, load=saved, outputs=["checkpoint"])
    again = ranks.run(count, follow, plan)[0].outputs["checkpoint"]
    facts = [
        json.loads((opts.checkpoint_dir / each / "state.json").read_text())
        for each in (saved, again)
    ]
    for each in facts:
        del each["label"]
    assert facts[0] == facts[1]  # among them digests of all tensors


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_replica_gives_the_log_probabilities_of_the_session(
    opts: TrainingClientOptions, ranks: Ranks, kind: str, strategy: str
) -> None:
    batches = batches_of(2)
    score = [datum([5, 6, 7, 8, 9, 10])]
    plan = Plan(opts, CONFIGS[kind], strategy, batches, ADAM, 1e-2, score=score, outputs=["live"])
    found = ranks.run(2, follow, plan)
    [live] = [each.outputs["live"] for each in found if each.outputs["live"] is not None]
    updates = [name for name in live.arrays if "lora_" in name]
    assert len(updates) == (len(live.arrays) if kind == "lora" else 0)
    [expected] = [row for each in found for row in each.logprobs.values()]
    replica = Replica(opts, CONFIGS[kind])
    model = published.find(replica.take(live)).model
    with torch.no_grad():
        logits = model(input_ids=torch.arange(5, 10)[None]).logits[0]
    logprobs = logits.log_softmax(-1)[torch.arange(5), torch.arange(6, 11)]
    np.testing.assert_allclose(logprobs, expected, atol=1e-6)
    replica.close()


def test_a_replica_withdraws_the_weights_before_and_refuses_those_of_other_models(
    opts: TrainingClientOptions,
) -> None:
    sessions = {kind: Rank(opts, config) for kind, config in CONFIGS.items()}
    replica = Replica(opts, CONFIGS["lora"])
    live = sessions["lora"].live()
    assert live is not None
    first, second = replica.take(live), replica.take(live)
    published.find(second)
    with pytest.raises(NotFound):
        published.find(first)
    full = sessions["full"].live()
    assert full is not None
    with pytest.raises(InvalidInput, match="updates of other weights"):
        replica.take(full)
    published.find(second)
    replica.close()
    with pytest.raises(NotFound):
        published.find(second)
    for session in sessions.values():
        session.close()


def test_a_replica_takes_weights_into_the_memory_of_those_before_unless_they_are_used(
    opts: TrainingClientOptions,
) -> None:
    session, replica = Rank(opts, CONFIGS["full"]), Replica(opts, CONFIGS["full"])
    live = session.live()
    assert live is not None

    def places(model: Any) -> list[int]:
        return [weight.data_ptr() for weight in model.parameters()]

    before = places(published.find(replica.take(live)).model)
    used = published.find(replica.take(live))
    assert places(used.model) == before
    after = places(published.find(replica.take(live)).model)
    assert not {*after} & {*before}
    replica.close()
    session.close()


def test_live_weights_travel_in_memory_that_may_not_be_written_to(
    opts: TrainingClientOptions,
) -> None:
    session, replica = Rank(opts, CONFIGS["lora"]), Replica(opts, CONFIGS["lora"])
    live = pickle.loads(pickle.dumps(session.live()))
    for array in live.arrays.values():
        array.flags.writeable = False
    replica.take(live)
    replica.close()
    session.close()


def test_a_tokenizer_travels_with_its_limits(opts: TrainingClientOptions) -> None:
    session = Rank(opts, CONFIGS["full"])
    tokenizer = pickle.loads(pickle.dumps(session.tokenizer))
    assert tokenizer.encode("ab") == [97, 98]
    assert tokenizer.model_max_length == session.facts().max_length == 32
    session.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_update_is_exported_alone(
    opts: TrainingClientOptions, client: TrainingClient, ranks: Ranks, strategy: str, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    client.export_weights(client.start_session(SessionConfig("deep")), base)
    config = SessionConfig(str(base), lora=LoraConfig(rank=2))
    session = client.start_session(config)
    in_one(client, session, batches_of(2))
    folders = {name: tmp_path / name for name in ("one", "ranks")}
    for folder in folders.values():
        folder.mkdir()
    client.export_weights(session, folders["one"], merge=False)
    plan = Plan(opts, config, strategy, batches_of(2), ADAM, RATE, outputs=[str(folders["ranks"])])
    ranks.run(2, follow, plan)
    one, several = (load_file(f / "adapter_model.safetensors") for f in folders.values())
    assert one.keys() == several.keys()
    for name, weight in one.items():
        assert torch.allclose(weight, several[name], rtol=0, atol=1e-5), name


def test_facts_are_those_of_the_whole_session(opts: TrainingClientOptions, ranks: Ranks) -> None:
    one = Rank(opts, CONFIGS["full"])
    alone = one.facts()
    one.close()
    for strategy in STRATEGIES:
        for facts in ranks.run(2, facts_of, Plan(opts, CONFIGS["full"], strategy)):
            assert facts.storage == alone.storage
            assert facts.info == {**alone.info, "ranks": 2, "strategy": strategy}


def test_the_micro_batch_is_the_least_that_a_rank_has_room_for(
    opts: TrainingClientOptions, ranks: Ranks
) -> None:
    auto = opts.model_copy(update={"micro_batch_tokens": "auto"})
    for strategy in STRATEGIES:
        for facts in ranks.run(2, facts_of, Plan(auto, CONFIGS["full"], strategy), [4096, 512]):
            assert facts.info["micro_batch_tokens"] == 512


def weights_in(folder: str) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(Path(folder) / "model.safetensors")
    return weights
