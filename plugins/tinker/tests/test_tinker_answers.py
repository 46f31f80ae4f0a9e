"""What becomes of a server's answer, whatever it does at the end of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from crucible_adapter_tinker.sampling import answers, requests
from crucible_adapter_tinker.sampling.requests import Reader, Stop
from crucible_adapter_tinker.tokenizer import HuggingFaceTokenizer
from crucible_kitchen import (
    AdapterError,
    Completion,
    InvalidInput,
    Message,
    ModelInput,
    SamplingParams,
    Unsupported,
)

pytest.importorskip("tinker")

WORDS = ["<|end|>", "see", " the", " sea", " se", "a", ".\n", "\n"]
END = 0


@dataclass
class Sequence:
    """A sampled sequence, as the SDK has it."""

    tokens: list[int]
    stop_reason: str = "length"
    logprobs: list[float] | None = None


@pytest.fixture(scope="module")
def reader() -> Reader:
    """A model of whole words, which has no chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, WORDS[0]))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(WORDS[END], special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=WORDS[END])
    return Reader(HuggingFaceTokenizer(tokenizer), len(WORDS), context=16)


def ids(found: Completion) -> list[int]:
    assert found.tokens is not None
    return [*map(int, found.tokens)]


def nats(found: Completion) -> list[float]:
    assert found.logprobs is not None
    return [*map(float, found.logprobs)]


def read(reader: Reader, sequence: Sequence, **params: Any) -> Completion:
    asked = SamplingParams(8, **params)
    stop = Stop.of(reader, asked)
    return answers.completion(sequence, [1, 2], asked, stop, reader.tokenizer)


def test_an_answer_ends_at_the_models_end_token_though_the_server_went_on(reader: Reader) -> None:
    found = read(reader, Sequence([1, 2, END, 3, 3], logprobs=[-1, -2, -3, -4, -5]), logprobs=True)
    assert found.text == "see the"
    assert ids(found) == [1, 2, END]
    assert nats(found) == [-1, -2, -3]
    assert found.finish_reason == "stop"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (2, 3)


def test_an_answer_without_the_token_at_which_the_server_stopped_is_all_text(
    reader: Reader,
) -> None:
    found = read(reader, Sequence([1, 2, 3], "stop"))
    assert (found.text, found.finish_reason) == ("see the sea", "stop")


@pytest.mark.parametrize(
    ("stop", "text", "size"),
    [
        (("sea",), "see the ", 4),  # made of two tokens
        ((" the",), "see", 2),
        ((".", "a."), "see the se", 5),  # the first in the text, of those that one token completes
        (("\n",), "see the sea.", 5),  # part of a token
    ],
)
def test_a_stop_string_ends_an_answer_with_the_token_that_completes_it(
    reader: Reader, stop: tuple[str, ...], text: str, size: int
) -> None:
    tokens = [1, 2, 4, 5, 6, 3, END]
    found = read(reader, Sequence(tokens, "stop", [-1.0] * 7), stop=stop, logprobs=True)
    assert (found.text, found.finish_reason) == (text, "stop")
    assert ids(found) == tokens[:size]
    assert len(nats(found)) == size


def test_a_stop_string_behind_the_end_token_is_not_reached(reader: Reader) -> None:
    found = read(reader, Sequence([1, END, 2, 3]), stop=(" sea",))
    assert found.text == "see"
    assert ids(found) == [1, END]


def test_a_stop_token_ends_an_answer_and_is_not_in_its_text(reader: Reader) -> None:
    found = read(reader, Sequence([1, 2, 3]), stop=(2,))
    assert ids(found) == [1, 2]
    assert (found.text, found.finish_reason) == ("see", "stop")


def test_an_empty_stop_passes_the_end_token_and_a_server_that_cannot_is_named(
    reader: Reader,
) -> None:
    found = read(reader, Sequence([1, END, 2]), stop=())
    assert (found.text, found.finish_reason) == ("see the", "length")
    with pytest.raises(Unsupported, match=r"even with `stop=\(\)`"):
        read(reader, Sequence([1, END], "stop"), stop=())


@pytest.mark.parametrize(
    ("sequence", "error", "said"),
    [
        (Sequence([1, 2]), Unsupported, "no log probabilities"),
        (Sequence([1, 2], logprobs=[-1.0]), AdapterError, "1 log probabilities for 2 tokens"),
        (Sequence([1, 2], logprobs=[-1.0, float("nan")]), AdapterError, "not finite"),
        (Sequence([], logprobs=[]), AdapterError, "without a token"),
        (Sequence([1], "abort", [-1.0]), AdapterError, "'abort'"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(
    reader: Reader, sequence: Sequence, error: type[AdapterError], said: str
) -> None:
    with pytest.raises(error, match=said):
        read(reader, sequence, logprobs=True)


@pytest.mark.parametrize("given", [[None, -1.0, -2.0], [float("nan"), -1.0, -2.0], [-1.0, -2.0]])
def test_a_score_is_the_same_with_an_entry_for_the_first_token_and_without(
    given: list[float | None],
) -> None:
    found = answers.score(given, 3)
    assert found.dtype == np.float32
    assert found.tolist() == [-1.0, -2.0]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (None, Unsupported, "does not score"),
        ([-1.0], AdapterError, "1 log probabilities for 3 tokens"),
        ([None, -1.0, None], AdapterError, "not finite"),
    ],
)
def test_a_score_that_lacks_something_is_an_error(
    given: Any, error: type[AdapterError], said: str
) -> None:
    with pytest.raises(error, match=said):
        answers.score(given, 3)


def test_a_server_is_told_of_strings_or_tokens_and_skyrl_of_tokens(reader: Reader) -> None:
    for stop, kind, told in (
        (None, "tinker", [END]),
        ((), "tinker", []),
        ((3, 1), "tinker", [END, 1, 3]),
        (("sea",), "tinker", ["sea", WORDS[END]]),
        (("sea",), "skyrl", [END]),
    ):
        params = SamplingParams(8, stop=stop)
        found = requests.sampling(params, Stop.of(reader, params), 8, None, kind)  # type: ignore[arg-type]
        assert list(found.stop) == told
        assert found.seed is None


def test_a_seed_has_31_bits_and_larger_ones_are_others(reader: Reader) -> None:
    params = SamplingParams(8)
    stop = Stop.of(reader, params)

    def sent(seed: int) -> int:
        found: int = requests.sampling(params, stop, 8, seed, "tinker").seed
        return found

    assert sent(5) == 5
    others = [sent(seed) for seed in (-5, 2**31 + 5, 2**32 + 5, 2**64 + 5)]
    assert len({5, *others}) == 5
    assert all(0 <= seed < 2**31 for seed in others)
    assert sent(-5) == others[0]


def test_a_prompt_is_checked_before_it_is_sent(reader: Reader) -> None:
    assert requests.tokens_of(reader, ModelInput.from_ints([1, 7]), reply=True) == [1, 7]
    with pytest.raises(InvalidInput, match="tokens 1 to 8; the vocabulary is 0 to 7"):
        requests.tokens_of(reader, [1, 8], reply=True)
    with pytest.raises(Unsupported, match="chat template"):
        requests.tokens_of(reader, [Message(role="user", content="hello")], reply=True)
    assert requests.room_for(reader, [1] * 15, SamplingParams(8)) == 1
    with pytest.raises(InvalidInput, match="16 tokens and the context is 16"):
        requests.room_for(reader, [1] * 16, SamplingParams(8))
