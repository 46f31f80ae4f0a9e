"""Answers of the completer `torch`, against `generate` of Transformers on the same model.

Greedy answers must be the same tokens, with the same log probabilities; of sampled ones, whose
random numbers differ, as many. The end token is switched off, so that lengths are those asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .comparison import Growth, Row, at_least
from .settings import Settings

AGAINST = "transformers generate, batched, with the logits of each step"
VOCABULARY = 32000
SIZES = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 2048,
}

Answers: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Token ids and their log probabilities, `(answers, tokens)` each."""


@dataclass(frozen=True)
class Task:
    """What is to be sampled.

    Args:
        prompts: token ids of each.
        samples: answers to each prompt.
        tokens: of each answer.
        temperature: 0 is greedy.
    """

    prompts: Sequence[Sequence[int]]
    samples: int
    tokens: int
    temperature: float

    @property
    def work(self) -> int:
        """The tokens of all answers."""
        return len(self.prompts) * self.samples * self.tokens


def rows(settings: Settings) -> Iterator[Row]:
    small = settings.small
    count, tokens, samples = (8, 4, 4) if small else (64, 64, 16)
    lengths = np.random.default_rng(0).integers(16, 32 if small else 257, count)
    with two_ways(settings) as (ours, theirs):
        yield _row(
            settings,
            ours,
            theirs,
            Task(_prompts(lengths.tolist()), 1, tokens, 0.0),
            f"{count} prompts of {lengths.min()} to {lengths.max()} tokens, {tokens} new, greedy",
            1.5,
        )
        for length, goal in ((128, 2.0), (512, 3.0)):
            length = length // 16 if small else length
            yield _row(
                settings,
                ours,
                theirs,
                Task(_prompts([length] * 8), samples, tokens, 1.0),
                f"RL: 8 prompts of {length} tokens, {samples} samples, {tokens} new",
                goal,
            )


def growth(settings: Settings) -> Iterator[Growth]:
    """Yield how the rate changes with the number of prompts, their length, and that of answers."""
    part = 8 if settings.small else 1

    def task(prompts: int, length: int, tokens: int, samples: int = 1) -> Task:
        each = _prompts([length // part] * prompts)
        return Task(each, samples, tokens // part, 1.0 if samples > 1 else 0.0)

    tasks = {
        "prompts": {n: task(n, 128, 32) for n in (8, 16, 32, 64)},
        "tokens in a prompt, of 4 with 8 samples": {
            n: task(4, n, 32, 8) for n in (64, 128, 256, 512)
        },
        "tokens in an answer": {n: task(16, 128, n) for n in (16, 32, 64, 128)},
    }
    with two_ways(settings) as (ours, theirs):
        for variable, values in tasks.items():
            curves: dict[str, list[float]] = {"the completer": [], "generate": []}
            for each in values.values():
                found = settings.contest().run(
                    ours=partial(ours, each), theirs=partial(theirs, each)
                )
                _check(each, found.results)
                for curve, way in zip(curves.values(), ("ours", "theirs"), strict=True):
                    curve.append(each.work / float(np.median(found.seconds[way])))
            yield Growth("sampling", variable, "tokens/s", [*values], {**curves})


def _row(
    settings: Settings,
    ours: Callable[[Task], Answers],
    theirs: Callable[[Task], Answers],
    task: Task,
    what: str,
    goal: float,
) -> Row:
    found = settings.contest().run(ours=partial(ours, task), theirs=partial(theirs, task))
    _check(task, found.results)
    return found.row(
        "ours",
        "theirs",
        what=what,
        against=AGAINST,
        goal=at_least(goal),
        work=task.work,
        unit="tokens/s",
    )


def _check(task: Task, found: dict[str, Answers]) -> None:
    (ours, our_logprobs), (theirs, their_logprobs) = found["ours"], found["theirs"]
    shape = (len(task.prompts) * task.samples, task.tokens)
    assert ours.shape == theirs.shape == shape, f"answers of other lengths: {ours.shape}, {shape}"
    assert np.isfinite(our_logprobs).all(), "log probabilities that are not finite"
    if task.temperature == 0:
        assert np.array_equal(ours, theirs), "greedy answers differ"
        apart = np.abs(our_logprobs - their_logprobs).max()
        assert apart < 1e-4, f"log probabilities differ by {apart:.2g}"


def _prompts(lengths: Sequence[int]) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, VOCABULARY, length).tolist() for length in lengths]


@contextlib.contextmanager
def two_ways(
    settings: Settings,
) -> Iterator[tuple[Callable[[Task], Answers], Callable[[Task], Answers]]]:
    """Open the two ways to answer, with one model."""
    import crucible_adapter_torch.completer as torch_completer
    import torch
    from crucible_adapter_torch.models.loading import load
    from crucible_adapter_torch.options import ModelOptions
    from crucible_kitchen import Completion, Kitchen, SamplingParams

    # One seed, so one model.
    shared: dict[str, Any] = {
        "models": {"model": {**SIZES, "vocab_size": VOCABULARY}},
        "device": settings.device,
        "dtype": "float32",
    }
    model = load(ModelOptions(**shared), "model").model
    model.generation_config.eos_token_id = None

    def generate(task: Task) -> Answers:
        width = max(map(len, task.prompts))
        ids = np.zeros((len(task.prompts), width), np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(task.prompts):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        how: dict[str, Any] = {"do_sample": False}
        if task.temperature:
            how = {"do_sample": True, "temperature": task.temperature, "top_k": 0, "top_p": 1.0}
        found = model.generate(
            input_ids=torch.from_numpy(ids).to(model.device),
            attention_mask=torch.from_numpy(mask).to(model.device),
            max_new_tokens=task.tokens,
            num_return_sequences=task.samples,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
            **how,
        )
        logprobs = model.compute_transition_scores(
            found.sequences, found.logits, normalize_logits=True
        )
        return found.sequences[:, width:].cpu().numpy(), logprobs.cpu().numpy()

    options = {"use": torch_completer, "model": "model", "max_batch_tokens": 131072, **shared}
    with Kitchen(adapters={"completer": options}) as kitchen:

        def complete(task: Task) -> Answers:
            params = SamplingParams(
                task.tokens,
                temperature=task.temperature,
                n=task.samples,
                seed=0,
                stop=(),
                logprobs=True,
            )
            tokens, logprobs = [], []
            for answer in kitchen.completer.complete_batch(task.prompts, params):
                assert isinstance(answer, Completion), answer
                assert answer.tokens is not None
                assert answer.logprobs is not None
                tokens.append(answer.tokens)
                logprobs.append(answer.logprobs)
            return np.stack(tokens), np.stack(logprobs)

        yield complete, generate
