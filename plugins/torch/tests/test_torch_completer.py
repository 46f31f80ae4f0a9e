"""What the completer of this adapter does beyond the promises of its port."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from crucible_adapter_torch import completer as torch_completer
from crucible_adapter_torch import live_weights
from crucible_adapter_torch import training_client as torch_training_client
from crucible_adapter_torch.options import CompleterOptions
from crucible_kitchen import (
    AdapterError,
    Completer,
    Completion,
    ImageChunk,
    InvalidInput,
    Kitchen,
    Message,
    ModelInput,
    NotFound,
    SamplingParams,
    SessionConfig,
    TrainingClient,
    Unsupported,
)
from tiny_torch import MODELS, TINY, MakeKitchen, datum, train

PROMPTS = [[1, 2, 3], [4] * 9, [5], [6, 7, 8], [9, 10], [11] * 20]
PARAMS = SamplingParams(6, seed=0, stop=(), logprobs=True)
CLIENT = {"use": torch_training_client, "models": MODELS, "device": "cpu"}


def parts(completion: Completion | AdapterError) -> tuple[list[int], str | None, str]:
    """Return the tokens of a completion, why it ended, and its text."""
    assert isinstance(completion, Completion)
    assert completion.tokens is not None
    return completion.tokens.tolist(), completion.finish_reason, completion.text


def tokens_of(completion: Completion | AdapterError) -> list[int]:
    return parts(completion)[0]


def options_of(completer: Completer) -> CompleterOptions:
    assert isinstance(completer.options, CompleterOptions)
    return completer.options


@pytest.fixture(scope="module")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Weights that have learned to write "abcdef" after "ab"."""
    options = {**CLIENT, "checkpoint_dir": tmp_path_factory.mktemp("checkpoints")}
    with Kitchen(adapters={"training_client": options}) as kitchen:
        client = kitchen.training_client
        session = client.start_session(SessionConfig("deep"))
        train(client, session, [datum([*b"abcdef", 256])] * 4, steps=60)
        yield client.save_weights_for_sampler(session)


def greedy(reference: str, **changes: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 10, "temperature": 0, "model": reference, **changes})


# --- what is returned ---


def test_greedy_is_the_most_likely_token_each_time(
    completer: Completer, client: TrainingClient
) -> None:
    reference = client.save_weights_for_sampler(client.start_session(TINY))
    tokens = tokens_of(completer.complete([1, 2, 3], greedy(reference, stop=())))
    for cut in range(len(tokens)):
        so_far = [1, 2, 3, *tokens[:cut]]
        scores = completer.score([[*so_far, token] for token in range(257)], reference)
        assert int(np.argmax([score[-1] for score in scores])) == tokens[cut]


def test_the_end_token_stops_and_is_among_the_tokens_but_not_in_the_text(
    completer: Completer, alphabet: str
) -> None:
    result = completer.complete(list(b"ab"), greedy(alphabet))
    assert parts(result) == ([*b"cdef", 256], "stop", "cdef")


def test_an_empty_stop_stops_at_nothing(completer: Completer, alphabet: str) -> None:
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=()))
    assert tokens_of(result)[4] == 256
    assert (len(tokens_of(result)), result.finish_reason) == (10, "length")
    assert "<|endoftext|>" not in result.text


def test_a_token_id_stops(completer: Completer, alphabet: str) -> None:
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=(ord("e"),)))
    assert parts(result) == ([*b"cde"], "stop", "cd")


def test_a_token_id_out_of_an_array_stops(completer: Completer, alphabet: str) -> None:
    ids = np.array([ord("e")])
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=tuple(ids)))
    assert parts(result) == ([*b"cde"], "stop", "cd")


@pytest.mark.parametrize("stop", ["e", "de", "cde", ("x", "de")])
def test_a_string_stops_across_tokens_and_is_not_in_the_text(
    completer: Completer, alphabet: str, stop: Any
) -> None:
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=stop))
    last = stop[-1] if isinstance(stop, tuple) else stop
    assert parts(result) == ([*b"cde"], "stop", "cde".removesuffix(last))


def test_a_stop_string_leaves_the_end_token_in_force(completer: Completer, alphabet: str) -> None:
    result = completer.complete(list(b"ab"), greedy(alphabet, stop="zzz"))
    assert parts(result) == ([*b"cdef", 256], "stop", "cdef")


def test_max_tokens_ends_with_length(completer: Completer, alphabet: str) -> None:
    result = completer.complete(list(b"ab"), greedy(alphabet, max_tokens=2))
    assert parts(result) == ([*b"cd"], "length", "cd")


def test_the_end_of_the_context_ends_with_length(completer: Completer) -> None:
    result = completer.complete([1] * 30, replace(PARAMS, max_tokens=10))
    assert (len(tokens_of(result)), result.finish_reason) == (2, "length")


# --- prompts ---


def test_messages_need_a_chat_template(completer: Completer) -> None:
    with pytest.raises(Unsupported, match="token ids"):
        completer.complete([Message(role="user", content="hi")], PARAMS)


def test_messages_go_through_the_chat_template(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    tokenizer = client.helper("get_tokenizer")(session).tokenizer
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    params = replace(PARAMS, model=client.save_weights_for_sampler(session, "chat"))
    expected = parts(completer.complete(list(b"hi>"), params))
    messages: list[Message] = [{"role": "user", "content": "hi"}]
    assert parts(completer.complete(messages, params)) == expected


def test_messages_that_the_chat_template_refuses_do_not_lose_the_rest(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    client.helper("get_tokenizer")(
        session
    ).tokenizer.chat_template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('the user begins') }}{% endif %}hi"
    )
    params = replace(PARAMS, model=client.save_weights_for_sampler(session))
    prompts = [[Message(role=role, content="")] for role in ("assistant", "user")]
    bad, good = completer.complete_batch(prompts, params)
    assert isinstance(bad, InvalidInput)
    assert "the user begins" in bad.reason
    assert len(tokens_of(good)) == 6


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ([], "no tokens"),
        (ModelInput(()), "no tokens"),
        (None, "flat sequence of integers"),
        ([1, 257], "vocabulary is 0 to 256"),
        ([-1], "vocabulary is 0 to 256"),
        ([1] * 32, "no room"),
        ("hello", "flat sequence of integers"),
        ([1.5], "flat sequence of integers"),
    ],
)
def test_a_bad_prompt_is_invalid_input(completer: Completer, prompt: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        completer.complete(prompt, PARAMS)
    [bad, good] = completer.complete_batch([prompt, [1]], PARAMS)
    assert isinstance(bad, InvalidInput)
    assert len(tokens_of(good)) == 6


def test_an_image_is_unsupported(completer: Completer) -> None:
    with pytest.raises(Unsupported, match="image"):
        completer.complete(ModelInput((ImageChunk(b"", "png", 2),)), PARAMS)


# --- batches ---


def test_results_do_not_depend_on_the_batch_they_are_in(
    make_kitchen: MakeKitchen, completer: Completer
) -> None:
    small = make_kitchen().completer
    object.__setattr__(small.options, "max_batch_tokens", 20)
    together = completer.complete_batch(PROMPTS, PARAMS)
    for left, right in zip(together, small.complete_batch(PROMPTS, PARAMS), strict=True):
        assert parts(left) == parts(right)


def test_no_more_tokens_are_in_memory_than_the_options_allow(
    client: TrainingClient, completer: Completer
) -> None:
    reference = client.save_weights_for_sampler(client.start_session(TINY))
    rows = []
    live_weights.find(reference).model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    opts = options_of(completer).model_copy(update={"max_batch_tokens": 30})
    torch_completer.complete_batch(opts, PROMPTS, replace(PARAMS, model=reference))
    assert max(rows) == 3  # of 1, 2 and 3 tokens, and 6 each to come: 27; a fourth makes 36


def test_answers_that_end_early_do_not_disturb_the_others(
    completer: Completer, alphabet: str
) -> None:
    # stops after 1, 2, 3, 4 tokens, so the batch is compacted on the way
    prompts = [list(b"abcdef"[:size]) for size in (5, 4, 3, 2)]
    results = completer.complete_batch(prompts, greedy(alphabet, stop=("f",)))
    assert [parts(r)[2] for r in results] == ["", "e", "de", "cde"]
    assert [parts(r)[1] for r in results] == ["stop"] * 4


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
def test_an_answer_at_the_end_of_the_context_does_not_disturb_the_others(
    completer: Completer, model: str
) -> None:
    params = replace(PARAMS, model=model, max_tokens=20)
    results = completer.complete_batch([[1] * 30, [2], [3]], params)
    assert [len(tokens_of(r)) for r in results] == [2, 20, 20]
    assert parts(results[1]) == parts(completer.complete([2], replace(params, seed=1)))


def test_one_item_with_an_output_that_is_not_finite_does_not_lose_the_rest(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    with torch.no_grad():
        session.engine.weights["model.embed_tokens.weight"][7] = float("nan")
    params = greedy(client.save_weights_for_sampler(session), stop=())
    expected = parts(completer.complete([1, 2], params))
    first, bad, last = completer.complete_batch([[1, 2], [6, 7], [1, 2]], params)
    assert isinstance(bad, AdapterError)
    assert "not finite" in bad.reason
    assert parts(first) == parts(last) == expected


def test_weights_that_have_diverged_are_an_error(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    with torch.no_grad():
        session.engine.weights["lm_head.weight"].fill_(float("nan"))
    reference = client.save_weights_for_sampler(session)
    with pytest.raises(AdapterError, match="diverged"):
        completer.complete([1], replace(PARAMS, model=reference))


# --- streams ---


def test_a_stream_holds_back_what_may_begin_a_stop_string(
    completer: Completer, alphabet: str
) -> None:
    chunks = list(completer.stream_complete(list(b"ab"), greedy(alphabet, stop="dex")))
    assert [chunk.text for chunk in chunks] == ["c", "", "", "def", ""]
    assert all(chunk.logprobs is None for chunk in chunks)  # not asked for


def test_weights_that_have_diverged_fail_the_stream(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    with torch.no_grad():
        session.engine.weights["lm_head.weight"].fill_(float("nan"))
    params = replace(PARAMS, model=client.save_weights_for_sampler(session))
    with pytest.raises(AdapterError, match="diverged"):
        list(completer.stream_complete([1], params))


# --- scores ---


def test_scores_are_the_logprobs_of_the_given_tokens(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    reference = client.save_weights_for_sampler(session)
    rows = [[1, 2, 3, 4], [5], list(range(33)), [6, 7]]
    scores = completer.score(rows, reference)
    assert [(s.dtype.name, len(s)) for s in scores] == [("float32", len(r) - 1) for r in rows]
    for row, score in zip(rows, scores, strict=True):
        if len(row) == 1:
            continue
        with torch.no_grad():
            logits = session.engine.model(input_ids=torch.tensor([row[:-1]])).logits[0]
        expected = logits.log_softmax(-1)[torch.arange(len(row) - 1), torch.tensor(row[1:])]
        np.testing.assert_allclose(score, expected, atol=1e-5)


def test_messages_are_scored_without_the_beginning_of_an_answer(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    client.helper("get_tokenizer")(
        session
    ).tokenizer.chat_template = (
        "{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}"
    )
    reference = client.save_weights_for_sampler(session)
    of_messages, of_tokens = completer.score(
        [[Message(role="user", content="hi")], list(b"hi")], reference
    )
    np.testing.assert_array_equal(of_messages, of_tokens)


@pytest.mark.parametrize("row", [[], [1, 300], [1] * 34])
def test_a_bad_sequence_to_score_is_invalid_input(completer: Completer, row: list[int]) -> None:
    with pytest.raises(InvalidInput, match="sequence 1"):
        completer.score([[1, 2], row])


# --- weights ---


def test_live_weights_are_those_of_the_moment_they_were_saved(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    reference = client.save_weights_for_sampler(session)
    before = completer.score([[1, 2, 3]], reference)[0]
    train(client, session, [datum([1, 2, 3])])
    assert np.array_equal(completer.score([[1, 2, 3]], reference)[0], before)
    newer = client.save_weights_for_sampler(session)
    assert completer.score([[1, 2, 3]], newer)[0].sum() > before.sum()


def test_live_weights_wait_for_what_is_queued(client: TrainingClient, completer: Completer) -> None:
    session = client.start_session(TINY)
    client.forward_backward(session, [datum([1, 2, 3])])
    client.optim_step(session, 1e-1)
    reference = client.save_weights_for_sampler(session)  # nothing was awaited
    with torch.no_grad():
        logits = session.engine.model(input_ids=torch.tensor([[1]])).logits[0, 0]
    score = completer.score([[1, 2]], reference)[0]
    np.testing.assert_allclose(score, logits.log_softmax(-1)[2], atol=1e-5)


def test_a_live_reference_lasts_until_the_next_one_or_the_end_of_the_session(
    client: TrainingClient, completer: Completer
) -> None:
    session = client.start_session(TINY)
    first = client.save_weights_for_sampler(session)
    named = client.save_weights_for_sampler(session, "kept")
    completer.complete([1], replace(PARAMS, model=first))  # a named one does not end it
    second = client.save_weights_for_sampler(session)
    assert first != second
    with pytest.raises(NotFound, match="save them with a name"):
        completer.complete([1], replace(PARAMS, model=first))
    client.close_session(session)
    with pytest.raises(NotFound):
        completer.complete([1], replace(PARAMS, model=second))
    completer.complete([1], replace(PARAMS, model=named))


def test_saving_a_name_again_gives_another_reference(client: TrainingClient) -> None:
    session = client.start_session(TINY)
    assert client.save_weights_for_sampler(session, "x") != client.save_weights_for_sampler(
        session, "x"
    )
    assert client.list_checkpoints() == []  # they are not checkpoints


def test_the_default_model_is_an_option(make_kitchen: MakeKitchen, completer: Completer) -> None:
    assert parts(completer.complete([1], PARAMS)) == parts(
        completer.complete([1], replace(PARAMS, model="tiny"))
    )


@pytest.mark.parametrize("named", [None, "tiny"])
def test_the_revision_is_that_of_the_default_model_however_it_is_named(
    completer: Completer, named: str | None
) -> None:
    opts = options_of(completer).model_copy(update={"revision": "v1"})
    with pytest.raises(Unsupported, match="no revision 'v1'"):
        torch_completer.complete(opts, [1], replace(PARAMS, model=named))


def test_the_revision_of_the_default_model_is_not_that_of_others(completer: Completer) -> None:
    opts = options_of(completer).model_copy(update={"revision": "v1"})
    torch_completer.complete(opts, [1], replace(PARAMS, model="deep"))


def test_the_seed_of_the_options_makes_the_random_weights(completer: Completer) -> None:
    scores = []
    for seed in (1, 1, 2):
        opts = options_of(completer).model_copy(update={"seed": seed})
        scores.append(torch_completer.score(opts, [[1, 2]], None)[0])
    assert scores[0] == scores[1] != scores[2]


def test_no_model_is_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="no model"):
        torch_completer.complete(CompleterOptions(), [1], PARAMS)


def test_the_models_used_last_stay_loaded(make_kitchen: MakeKitchen) -> None:
    completer = make_kitchen().completer
    for model in ("tiny", "deep", "tiny", "gpt2"):
        completer.complete([1], replace(PARAMS, model=model))
    assert list(torch_completer._sampler(options_of(completer))._loaded) == ["tiny", "gpt2"]
    completer.close()
    assert torch_completer._sampler.peek(options_of(completer)) is None
