"""How good a model is on examples that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import AdapterError, InvalidInput
from ...ports import Completer, TrainingClient
from ...types import FloatArray, ForwardBackwardResult, Prompt, SamplingParams, Tokenizer
from ..algorithm import Sample
from ..rows.rendering import Example


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
    logprobs = token_logprobs(client, result, [len(each.tokens) - 1 for each in examples])
    return -sum(
        float(np.dot(example.weights[1:], each))
        for example, each in zip(examples, logprobs, strict=True)
    )


def token_logprobs(
    client: TrainingClient, result: ForwardBackwardResult, lengths: Sequence[int]
) -> list[FloatArray]:
    """Return the log probabilities of the targets of each datum of a batch, float32 `(N_i,)`.

    Args:
        client: the training client, for messages.
        result: of the batch.
        lengths: N_i, how many targets each datum has.

    Raises:
        AdapterError: the result is not that of this batch.
    """
    found = [np.shape(output.get("logprobs", ())) for output in result.outputs]
    if found != [(length,) for length in lengths]:
        error = AdapterError(
            f"an output with logprobs of shape (n,) was expected for each of {len(lengths)} "
            f"sequences, n its length without the first token; there are {len(found)} outputs"
            + ("" if len(found) != len(lengths) else ", of other shapes")
        )
        error.port, error.adapter, error.callback = client.name, client.adapter, "await_"
        raise error
    return [output["logprobs"] for output in result.outputs]


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt whose answer is known.

    Args:
        prompt: what the completer is asked.
        text: the same as text, for people.
        answer: the right answer.
    """

    prompt: Prompt
    text: str
    answer: str


def exact_answers(
    completer: Completer,
    model: str,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    max_tokens: int | None,
    batch_size: int,
    ignore_thinking: bool = True,
) -> list[Sample]:
    """Complete each prompt greedily; return the completions, with reward 1 for exactly the answer.

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
    questions = [_question(example, tokenizer) for example in _by_length(asked)]
    return answered(completer, questions, params, batch_size, ignore_thinking)


def answered(
    completer: Completer,
    questions: Sequence[Question],
    params: SamplingParams,
    batch_size: int,
    ignore_thinking: bool = True,
) -> list[Sample]:
    """Return a completion of each question, with reward 1 if it is the answer, else 0.

    Raises:
        AdapterError: a completion failed.
    """
    samples = []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        results = completer.complete_batch([question.prompt for question in batch], params)
        for question, result in zip(batch, results, strict=True):
            if isinstance(result, AdapterError):
                raise result
            wanted = _said(question.answer, ignore_thinking)
            right = float(_said(result.text, ignore_thinking) == wanted)
            samples.append(Sample(question.text, result.text, right, question.answer))
    return samples


def mean_reward(samples: Sequence[Sample]) -> float:
    """Return the mean reward of samples that all have one."""
    return sum(sample.reward or 0.0 for sample in samples) / len(samples)


def _question(example: Example, tokenizer: Tokenizer) -> Question:
    answer = example.tokens[example.prompt_length :].tolist()
    prompt = example.prompt.tolist()
    return Question(
        prompt, tokenizer.decode(prompt), tokenizer.decode(answer, skip_special_tokens=True)
    )


def _said(text: str, ignore_thinking: bool) -> str:
    """Return the part of an answer that is compared. Thoughts that never end are not part of it."""
    if ignore_thinking and "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif ignore_thinking and "<think>" in text:
        text = text.partition("<think>")[0]
    return text.strip()


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    ordered = _by_length(examples)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _by_length(examples: Sequence[Example]) -> list[Example]:
    # Similar lengths together waste least padding; the order of the results does not matter.
    order = np.argsort([len(example.tokens) for example in examples], kind="stable")
    return [examples[index] for index in order]
