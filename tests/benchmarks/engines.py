"""Sampling with an inference engine: `completer.vllm` against `completer.torch`, and what weights
take from the trainer to the engine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from .comparison import Growth, Row
from .settings import Settings, Skipped

MODEL = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 704,
    "vocab_size": 32_000,
    "max_position_embeddings": 1024,
}
SMALL = {
    **MODEL,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
NOTE = (
    "vLLM on a CPU, without a compiler; its own processes compute, so that this is time on the wall"
)


@contextlib.contextmanager
def _kitchen(settings: Settings) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield both completers, and the training client with a session whose weights they sample."""
    for module in ("vllm", "crucible_adapter_vllm", "torch"):
        if importlib.util.find_spec(module) is None:
            raise Skipped(f"{module} is not installed")
    from crucible_kitchen import Kitchen, SessionConfig

    shared = {"device": settings.device}
    eager = settings.device == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        trainer = {
            "use": "torch",
            "models": {"small": SMALL if settings.small else MODEL},
            "checkpoint_dir": folder,
            **shared,
        }
        engine = {"use": "vllm", "kv_cache_bytes": 2**30, "enforce_eager": eager}
        with (
            Kitchen({"training_client": trainer, "completer": engine}) as kitchen,
            Kitchen({"completer": {"use": "torch", **shared}}) as alone,
        ):
            client = kitchen.training_client
            session = client.start_session(SessionConfig("small"))
            yield kitchen.completer, alone.completer, client, session


def _prompts(count: int, shortest: int, longest: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    lengths = random.integers(shortest, longest + 1, count)
    return [random.integers(1, 256, length).tolist() for length in lengths]


def rows(settings: Settings) -> Iterator[Row]:
    from crucible_kitchen import SamplingParams

    new = 8 if settings.small else 32
    with _kitchen(settings) as (engine, torch, client, session):
        reference = client.save_weights_for_sampler(session)
        for what, prompts, n in (
            ("32 prompts of mixed length", _prompts(4 if settings.small else 32, 16, 256), 1),
            ("RL, 4 prompts of 128 x 16 samples", _prompts(4, 128, 128), 16),
            ("RL, 4 prompts of 512 x 16 samples", _prompts(4, 512, 512), 16),
        ):
            if settings.small:
                prompts = [prompt[:32] for prompt in prompts]
            # Greedy, so that both ways can be held to the same tokens.
            asked = SamplingParams(
                new, temperature=0.0, stop=(), n=n, logprobs=True, model=reference
            )
            contest = settings.contest(clock="wall").run(
                vllm=partial(engine.complete_batch, prompts, asked),
                torch=partial(torch.complete_batch, prompts, asked),
            )
            _assert_same(contest.results["vllm"], contest.results["torch"])
            yield contest.row(
                "vllm",
                "torch",
                what=f"completer.vllm: {what}, {new} new tokens",
                against="completer.torch",
                goal=None,
                work=new * n * len(prompts),
                unit="tokens/s",
                note=NOTE,
            )
        yield _handed_over(settings, engine, torch, client, session)


def _assert_same(ours: Any, theirs: Any) -> None:
    for answer in (*ours, *theirs):
        assert not isinstance(answer, Exception), answer
    equal = [a.tokens.tolist() == b.tokens.tolist() for a, b in zip(ours, theirs, strict=True)]
    # Two logits that are equal but for rounding may be in either order, and all else follows.
    assert np.mean(equal) >= 0.95, f"{equal.count(False)} of {len(equal)} answers differ"
    for mine, other, same in zip(ours, theirs, equal, strict=True):
        if same:
            found = np.abs(mine.logprobs - other.logprobs).max()
            assert found < 1e-3, f"log probabilities differ by {found}"


def _handed_over(settings: Settings, engine: Any, torch: Any, client: Any, session: Any) -> Row:
    """Time of an answer of one token with new weights."""
    from crucible_kitchen import SamplingParams

    def answer(completer: Any) -> int:
        reference = client.save_weights_for_sampler(session)
        asked = SamplingParams(1, temperature=0.0, model=reference)
        return int(completer.complete([1, 2, 3], asked).tokens[0])

    contest = settings.contest(clock="wall").run(
        vllm=lambda: answer(engine), torch=lambda: answer(torch)
    )
    assert contest.results["vllm"] == contest.results["torch"], "the answers differ"
    count = sum(weight.nbytes for weight in session.engine.weights.values())
    return contest.row(
        "vllm",
        "torch",
        what=f"completer.vllm: new weights ({count / 2**20:.0f} MiB) and one token",
        against="completer.torch, in the trainer's process",
        goal=None,
        work=1.0,
        unit="times/s",
        note="another process has to get the weights, which the torch completer shares",
    )


def growth(settings: Settings) -> Iterator[Growth]:
    from crucible_kitchen import SamplingParams

    new = 4 if settings.small else 32
    counts = [1, 2, 4, 8] if settings.small else [8, 16, 32, 64, 128]
    with _kitchen(settings) as (engine, torch, client, session):
        reference = client.save_weights_for_sampler(session)
        asked = SamplingParams(new, temperature=0.0, stop=(), logprobs=True, model=reference)
        curves: dict[str, list[float]] = {"completer.vllm": [], "completer.torch": []}
        for count in counts:
            prompts = _prompts(count, 128, 128)
            contest = settings.contest(clock="wall").run(
                vllm=partial(engine.complete_batch, prompts, asked),
                torch=partial(torch.complete_batch, prompts, asked),
            )
            for name, key in (("completer.vllm", "vllm"), ("completer.torch", "torch")):
                seconds = float(np.median(contest.seconds[key]))
                curves[name].append(new * count / seconds)
        yield Growth(
            what=f"Sampling {new} tokens after prompts of 128, with an engine and without",
            variable="prompts at a time",
            unit="tokens/s",
            values=counts,
            curves=curves,
            note=NOTE,
        )
