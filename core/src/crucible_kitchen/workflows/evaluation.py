"""How good a model is on examples that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import AdapterError, InvalidInput
from ..ports import Completer, TrainingClient
from ..types import ForwardBackwardResult, SamplingParams, Tokenizer
from .rows.rendering import Example


def mean_nll(
    client: TrainingClient, session: Any, examples: Sequence[Example], batch_size: int
) -> float:
    """Return the mean negative log likelihood of the weighted tokens, in nats.

    The sum of -w p over every token of every example, divided by the sum of w. All batches are
    submitted before the first is awaited.
    """
    futures = [
        client.forward(session, [example.datum() for example in batch])
        for batch in _batches(examples, batch_size)
    ]
    loss = sum(client.await_(future).loss for future in futures)
    return loss / sum(example.trained_tokens for example in examples)


def negative_log_likelihood(
    client: TrainingClient, result: ForwardBackwardResult, examples: Sequence[Example]
) -> float:
    """Return the sum of -w log p over the examples of a batch, in nats.

    Raises:
        AdapterError: the result is not that of this batch.
    """
    found = [np.shape(output.get("logprobs", ())) for output in result.outputs]
    if found != (expected := [example.weights[1:].shape for example in examples]):
        error = AdapterError(
            f"an output with logprobs of shape (n,) was expected for each of {len(expected)} "
            f"sequences, n its length without the first token; there are {len(found)} outputs"
            + ("" if len(found) != len(expected) else ", of other shapes")
        )
        error.port, error.adapter, error.callback = client.name, client.adapter, "await_"
        raise error
    return -sum(
        float(np.dot(example.weights[1:], output["logprobs"]))
        for example, output in zip(examples, result.outputs, strict=True)
    )


def exact_match(
    completer: Completer,
    model: str,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    max_tokens: int | None,
    batch_size: int,
    ignore_thinking: bool = True,
) -> float:
    """Return the share of examples whose greedy completion is their answer.

    Prompts travel as the token ids that were trained on, and a completion ends where the trained
    answer does. White space around both is ignored.

    Args:
        completer: where to sample.
        model: a reference from `save_weights_for_sampler`.
        examples: those without an answer are passed over.
        tokenizer: the model's.
        max_tokens: the longest completion; None is that of the longest answer.
        batch_size: prompts in one call.
        ignore_thinking: whether what comes before the last `</think>` is left out of both.

    Raises:
        InvalidInput: no example has an answer.
        AdapterError: a completion failed; a share of the rest would be another figure.
    """
    asked = [example for example in examples if example.prompt_length is not None]
    if not asked:
        raise InvalidInput("exact match needs rows with an answer: prompt and completion, or chat")
    longest = max(len(example.tokens) - (example.prompt_length or 0) for example in asked)
    ends = {e.end_token for e in asked if e.end_token is not None} - {tokenizer.eos_token_id}
    params = SamplingParams(
        max_tokens or longest, temperature=0.0, model=model, stop=tuple(sorted(ends)) or None
    )
    right = 0
    for batch in _batches(asked, batch_size):
        prompts = [example.tokens[: example.prompt_length].tolist() for example in batch]
        for example, result in zip(batch, completer.complete_batch(prompts, params), strict=True):
            if isinstance(result, AdapterError):
                raise result
            wanted = tokenizer.decode(
                example.tokens[example.prompt_length :].tolist(), skip_special_tokens=True
            )
            right += _said(result.text, ignore_thinking) == _said(wanted, ignore_thinking)
    return right / len(asked)


def _said(text: str, ignore_thinking: bool) -> str:
    """Return the part of an answer that is compared. Thoughts that never end are not part of it."""
    if ignore_thinking and "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif ignore_thinking and "<think>" in text:
        text = text.partition("<think>")[0]
    return text.strip()


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    # Similar lengths together waste least padding; the order of the results does not matter.
    order = np.argsort([len(example.tokens) for example in examples], kind="stable")
    for start in range(0, len(order), size):
        yield [examples[index] for index in order[start : start + size]]
