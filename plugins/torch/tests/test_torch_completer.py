"""The promises of the completer."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from crucible_adapter_torch import completer as torch_completer
from crucible_adapter_torch import live_weights
from crucible_adapter_torch.generation import sample
from crucible_kitchen import (
    AdapterError,
    Datum,
    ImageChunk,
    InvalidInput,
    LoraConfig,
    ModelInput,
    NotFound,
    SamplingParams,
    SessionConfig,
    Unsupported,
)

PROMPTS = [[1, 2, 3], [4] * 9, [5], [6, 7, 8], [9, 10], [11] * 20]
PARAMS = SamplingParams(6, seed=0, stop=(), logprobs=True)


def parts(completion):
    return completion.tokens.tolist(), completion.finish_reason, completion.text


@pytest.fixture
def trained(client, make_datum):
    """A session whose model has learned to write "abcdef" after "ab"."""
    session = client.start_session(SessionConfig("deep"))
    rows = [make_datum([*b"abcdef", 256])] * 4
    for _ in range(60):
        client.forward_backward(session, rows)
        client.await_(client.optim_step(session, 1e-2))
    return session


@pytest.fixture
def alphabet(client, trained):
    return client.save_weights_for_sampler(trained)


def greedy(reference, **changes):
    return SamplingParams(**{"max_tokens": 10, "temperature": 0, "model": reference, **changes})


# --- what is returned ---


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
def test_logprobs_equal_the_trainers_forward(client, completer, model):
    session = client.start_session(SessionConfig(model))
    reference = client.save_weights_for_sampler(session)
    results = completer.complete_batch(PROMPTS, replace(PARAMS, model=reference))
    for prompt, result in zip(PROMPTS, results, strict=True):
        sequence = np.array([*prompt, *result.tokens])
        datum = Datum(ModelInput.from_ints(sequence[:-1]), {"target_tokens": sequence[1:]})
        forward = client.await_(client.forward(session, [datum])).outputs[0]["logprobs"]
        assert result.logprobs.dtype == np.float32
        np.testing.assert_allclose(result.logprobs, forward[len(prompt) - 1 :], atol=1e-4)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_logprobs_equal_the_trainers_forward_after_training(client, completer, make_datum, lora):
    session = client.start_session(SessionConfig("tiny", lora=lora))
    for _ in range(3):
        client.forward_backward(session, [make_datum([1, 2, 3, 4])])
        client.await_(client.optim_step(session, 1e-1))
    reference = client.save_weights_for_sampler(session)
    result = completer.complete([1, 2], replace(PARAMS, model=reference))
    sequence = np.array([1, 2, *result.tokens])
    datum = Datum(ModelInput.from_ints(sequence[:-1]), {"target_tokens": sequence[1:]})
    forward = client.await_(client.forward(session, [datum])).outputs[0]["logprobs"]
    np.testing.assert_allclose(result.logprobs, forward[1:], atol=1e-4)


def test_logprobs_are_there_only_when_asked_for_and_of_the_length_of_the_tokens(completer):
    with_them = completer.complete([1, 2], PARAMS)
    assert with_them.logprobs.shape == with_them.tokens.shape == (6,)
    assert with_them.tokens.dtype == np.int64
    assert completer.complete([1, 2], replace(PARAMS, logprobs=False)).logprobs is None


def test_usage_counts_tokens(completer):
    usage = completer.complete([1, 2, 3], PARAMS).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 6)


def test_greedy_is_the_most_likely_token_each_time(completer, client):
    reference = client.save_weights_for_sampler(client.start_session(SessionConfig("tiny")))
    tokens = completer.complete([1, 2, 3], greedy(reference, stop=())).tokens.tolist()
    for cut in range(len(tokens)):
        so_far = [1, 2, 3, *tokens[:cut]]
        scores = completer.score([[*so_far, token] for token in range(257)], reference)
        assert int(np.argmax([score[-1] for score in scores])) == tokens[cut]


def test_the_end_token_stops_and_is_among_the_tokens_but_not_in_the_text(completer, alphabet):
    result = completer.complete(list(b"ab"), greedy(alphabet))
    assert parts(result) == ([*b"cdef", 256], "stop", "cdef")


def test_an_empty_stop_stops_at_nothing(completer, alphabet):
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=()))
    assert result.tokens[4] == 256
    assert (len(result.tokens), result.finish_reason) == (10, "length")
    assert "<|endoftext|>" not in result.text


def test_a_token_id_stops(completer, alphabet):
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=(ord("e"),)))
    assert parts(result) == ([*b"cde"], "stop", "cd")


def test_a_token_id_out_of_an_array_stops(completer, alphabet):
    ids = np.array([ord("e")])
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=tuple(ids)))
    assert parts(result) == ([*b"cde"], "stop", "cd")


@pytest.mark.parametrize("stop", ["e", "de", "cde", ("x", "de")])
def test_a_string_stops_across_tokens_and_is_not_in_the_text(completer, alphabet, stop):
    result = completer.complete(list(b"ab"), greedy(alphabet, stop=stop))
    last = stop[-1] if isinstance(stop, tuple) else stop
    assert parts(result) == ([*b"cde"], "stop", "cde".removesuffix(last))


def test_a_stop_string_leaves_the_end_token_in_force(completer, alphabet):
    result = completer.complete(list(b"ab"), greedy(alphabet, stop="zzz"))
    assert parts(result) == ([*b"cdef", 256], "stop", "cdef")


def test_max_tokens_ends_with_length(completer, alphabet):
    result = completer.complete(list(b"ab"), greedy(alphabet, max_tokens=2))
    assert parts(result) == ([*b"cd"], "length", "cd")


def test_the_end_of_the_context_ends_with_length(completer):
    result = completer.complete([1] * 30, replace(PARAMS, max_tokens=10))
    assert (len(result.tokens), result.finish_reason) == (2, "length")


# --- prompts ---


def test_token_ids_and_model_inputs_are_the_same_prompt(completer):
    expected = parts(completer.complete([1, 2, 3], PARAMS))
    for prompt in (np.array([1, 2, 3]), ModelInput.from_ints([1, 2, 3]), (1, 2, 3)):
        assert parts(completer.complete(prompt, PARAMS)) == expected


def test_messages_need_a_chat_template(completer):
    with pytest.raises(Unsupported, match="token ids"):
        completer.complete([{"role": "user", "content": "hi"}], PARAMS)


def test_messages_go_through_the_chat_template(client, completer):
    session = client.start_session(SessionConfig("tiny"))
    tokenizer = client.helper("get_tokenizer")(session).tokenizer
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    params = replace(PARAMS, model=client.save_weights_for_sampler(session, "chat"))
    expected = parts(completer.complete(list(b"hi>"), params))
    messages = [{"role": "user", "content": "hi"}]
    assert parts(completer.complete(messages, params)) == expected


def test_messages_that_the_chat_template_refuses_do_not_lose_the_rest(client, completer):
    session = client.start_session(SessionConfig("tiny"))
    client.helper("get_tokenizer")(
        session
    ).tokenizer.chat_template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('the user begins') }}{% endif %}hi"
    )
    params = replace(PARAMS, model=client.save_weights_for_sampler(session))
    prompts = [[{"role": role, "content": ""}] for role in ("assistant", "user")]
    bad, good = completer.complete_batch(prompts, params)
    assert isinstance(bad, InvalidInput)
    assert "the user begins" in bad.reason
    assert len(good.tokens) == 6


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
def test_a_bad_prompt_is_invalid_input(completer, prompt, problem):
    with pytest.raises(InvalidInput, match=problem):
        completer.complete(prompt, PARAMS)
    [bad, good] = completer.complete_batch([prompt, [1]], PARAMS)
    assert isinstance(bad, InvalidInput)
    assert len(good.tokens) == 6


def test_an_image_is_unsupported(completer):
    with pytest.raises(Unsupported, match="image"):
        completer.complete(ModelInput((ImageChunk(b"", "png", 2),)), PARAMS)


# --- batches ---


@pytest.mark.parametrize("stop", [(), tuple(range(60))])
def test_a_batch_is_prompt_major_and_result_k_has_seed_plus_k(completer, stop):
    one = replace(PARAMS, max_tokens=10, stop=stop)  # with a stop, answers end at any time
    params = replace(one, n=3, seed=7)
    results = completer.complete_batch(PROMPTS, params)
    assert len(results) == 18
    for k, result in enumerate(results):
        alone = completer.complete(PROMPTS[k // 3], replace(one, seed=7 + k))
        assert parts(result) == parts(alone)
        np.testing.assert_allclose(result.logprobs, alone.logprobs, atol=1e-5)
    assert len({tuple(r.tokens) for r in results[:3]}) == 3


def test_results_do_not_depend_on_the_batch_they_are_in(make_kitchen, completer):
    small = make_kitchen().completer
    object.__setattr__(small.options, "max_batch_tokens", 20)
    together = completer.complete_batch(PROMPTS, PARAMS)
    for left, right in zip(together, small.complete_batch(PROMPTS, PARAMS), strict=True):
        assert parts(left) == parts(right)


def test_no_more_tokens_are_in_memory_than_the_options_allow(client, completer):
    reference = client.save_weights_for_sampler(client.start_session(SessionConfig("tiny")))
    rows = []
    live_weights.find(reference).model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    opts = completer.options.model_copy(update={"max_batch_tokens": 30})
    torch_completer.complete_batch(opts, PROMPTS, replace(PARAMS, model=reference))
    assert max(rows) == 3  # of 1, 2 and 3 tokens, and 6 each to come: 27; a fourth makes 36


def test_answers_that_end_early_do_not_disturb_the_others(completer, alphabet):
    # stops after 1, 2, 3, 4 tokens, so the batch is compacted on the way
    prompts = [list(b"abcdef"[:size]) for size in (5, 4, 3, 2)]
    results = completer.complete_batch(prompts, greedy(alphabet, stop=("f",)))
    assert [r.text for r in results] == ["", "e", "de", "cde"]
    assert [r.finish_reason for r in results] == ["stop"] * 4


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
def test_an_answer_at_the_end_of_the_context_does_not_disturb_the_others(completer, model):
    params = replace(PARAMS, model=model, max_tokens=20)
    results = completer.complete_batch([[1] * 30, [2], [3]], params)
    assert [len(r.tokens) for r in results] == [2, 20, 20]
    assert parts(results[1]) == parts(completer.complete([2], replace(params, seed=1)))


def test_without_a_seed_results_differ(completer):
    results = completer.complete_batch([[1]] * 2, replace(PARAMS, seed=None))
    assert parts(results[0]) != parts(results[1])


def test_one_bad_item_does_not_lose_the_rest(completer):
    results = completer.complete_batch([[1], [1] * 40, [2]], replace(PARAMS, n=2))
    assert [isinstance(r, AdapterError) for r in results] == [False] * 2 + [True] * 2 + [False] * 2
    assert results[2].callback == "complete_batch"


def test_one_item_with_an_output_that_is_not_finite_does_not_lose_the_rest(client, completer):
    session = client.start_session(SessionConfig("tiny"))
    with torch.no_grad():
        session.engine.weights["model.embed_tokens.weight"][7] = float("nan")
    params = greedy(client.save_weights_for_sampler(session), stop=())
    expected = parts(completer.complete([1, 2], params))
    first, bad, last = completer.complete_batch([[1, 2], [6, 7], [1, 2]], params)
    assert "not finite" in bad.reason
    assert parts(first) == parts(last) == expected


def test_a_batch_of_nothing_is_nothing(completer):
    assert completer.complete_batch([], PARAMS) == []
    assert completer.score([]) == []


def test_complete_wants_one_completion(completer):
    with pytest.raises(InvalidInput):
        completer.complete([1], replace(PARAMS, n=2))


def test_it_may_be_called_from_many_threads(completer):
    expected = [parts(completer.complete(p, PARAMS)) for p in PROMPTS]
    found = [None] * len(PROMPTS)

    def work(index):
        found[index] = parts(completer.complete(PROMPTS[index], PARAMS))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


# --- sampling ---


def frequencies(logits, params, draws=4000):
    uniforms = (np.arange(draws) + 0.5) / draws  # a grid: exact, not random
    tokens, logprobs = sample(torch.tensor([logits] * draws), params, uniforms)
    return np.bincount(tokens, minlength=len(logits)) / draws, tokens, logprobs


LOGITS = [1.0, 3.0, 2.0, -1.0, 0.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_sets_the_distribution(temperature):
    found, _, _ = frequencies(LOGITS, SamplingParams(1, temperature=temperature))
    expected = np.exp(np.array(LOGITS) / temperature)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3)


def test_top_k_keeps_the_most_likely():
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_k=2))
    expected = np.exp([0.0, 3.0, 2.0, 0.0, 0.0]) * [0, 1, 1, 0, 0]
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, [1]), (0.65, [1, 2]), (0.96, [0, 1, 2, 4])])
def test_top_p_keeps_the_smallest_set_that_holds_the_probability(top_p, kept):
    # the probabilities, sorted, add up to 0.64, 0.87, 0.957, 0.99, 1
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_p=top_p))
    assert np.flatnonzero(found).tolist() == kept


def test_top_p_is_of_what_top_k_left():
    # of the two that are left, the first has 0.73, though 0.64 of all
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_k=2, top_p=0.7))
    assert np.flatnonzero(found).tolist() == [1]


def test_a_top_k_beyond_the_vocabulary_keeps_all():
    found, _, _ = frequencies(LOGITS, SamplingParams(1, top_k=100))
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3, 4]


def test_a_token_of_no_probability_is_never_drawn():
    logits = torch.tensor([[-np.inf, 0.0, -np.inf]] * 2)
    tokens, _ = sample(logits, SamplingParams(1), np.array([0.0, np.nextafter(1, 0)]))
    assert tokens.tolist() == [1, 1]


@pytest.mark.parametrize("temperature", [1e-308, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature):
    found, _, _ = frequencies(LOGITS, SamplingParams(1, temperature=temperature))
    assert found[1] == 1


def test_logprobs_are_the_models_whatever_the_sampling():
    expected = torch.tensor(LOGITS).log_softmax(-1)
    for params in (SamplingParams(1, temperature=0), SamplingParams(1, temperature=3, top_k=2)):
        _, tokens, logprobs = frequencies(LOGITS, params)
        torch.testing.assert_close(logprobs, expected[tokens])


def test_weights_that_have_diverged_are_an_error(client, completer):
    session = client.start_session(SessionConfig("tiny"))
    with torch.no_grad():
        session.engine.weights["lm_head.weight"].fill_(float("nan"))
    reference = client.save_weights_for_sampler(session)
    with pytest.raises(AdapterError, match="diverged"):
        completer.complete([1], replace(PARAMS, model=reference))


# --- streams ---


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stop", [(), None, ("a", "\n"), tuple(range(40))])
def test_chunks_add_up_to_what_complete_returns(completer, seed, stop):
    params = replace(PARAMS, max_tokens=20, seed=seed, stop=stop)
    whole = completer.complete([1, 2, 3], params)
    chunks = list(completer.stream_complete([1, 2, 3], params))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert np.concatenate([chunk.tokens for chunk in chunks]).tolist() == whole.tokens.tolist()
    assert np.concatenate([c.logprobs for c in chunks]).tolist() == whole.logprobs.tolist()
    assert [c.finish_reason for c in chunks] == [None] * (len(chunks) - 1) + [whole.finish_reason]


def test_a_stream_holds_back_what_may_begin_a_stop_string(completer, alphabet):
    chunks = list(completer.stream_complete(list(b"ab"), greedy(alphabet, stop="dex")))
    assert [chunk.text for chunk in chunks] == ["c", "", "", "def", ""]
    assert all(chunk.logprobs is None for chunk in chunks)  # nobody asked for them


def test_leaving_a_stream_early_frees_the_model(completer):
    stream = completer.stream_complete([1], PARAMS)
    next(stream)
    assert len(completer.complete([1], PARAMS).tokens) == 6  # even while it is open
    stream.close()


def test_a_bad_prompt_fails_the_stream(completer):
    with pytest.raises(InvalidInput, match="no room"):
        list(completer.stream_complete([1] * 32, PARAMS))


def test_weights_that_have_diverged_fail_the_stream(client, completer):
    session = client.start_session(SessionConfig("tiny"))
    with torch.no_grad():
        session.engine.weights["lm_head.weight"].fill_(float("nan"))
    params = replace(PARAMS, model=client.save_weights_for_sampler(session))
    with pytest.raises(AdapterError, match="diverged"):
        list(completer.stream_complete([1], params))


# --- scores ---


def test_scores_are_the_logprobs_of_the_given_tokens(client, completer):
    session = client.start_session(SessionConfig("tiny"))
    reference = client.save_weights_for_sampler(session)
    rows = [[1, 2, 3, 4], [5], list(range(33)), [6, 7]]
    scores = completer.score(rows, reference)
    assert [(s.dtype, s.shape) for s in scores] == [(np.float32, (len(r) - 1,)) for r in rows]
    for row, score in zip(rows, scores, strict=True):
        if len(row) == 1:
            continue
        with torch.no_grad():
            logits = session.engine.model(input_ids=torch.tensor([row[:-1]])).logits[0]
        expected = logits.log_softmax(-1)[torch.arange(len(row) - 1), torch.tensor(row[1:])]
        np.testing.assert_allclose(score, expected, atol=1e-5)


def test_messages_are_scored_without_the_beginning_of_an_answer(client, completer):
    session = client.start_session(SessionConfig("tiny"))
    client.helper("get_tokenizer")(
        session
    ).tokenizer.chat_template = (
        "{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}"
    )
    reference = client.save_weights_for_sampler(session)
    of_messages, of_tokens = completer.score(
        [[{"role": "user", "content": "hi"}], list(b"hi")], reference
    )
    np.testing.assert_array_equal(of_messages, of_tokens)


@pytest.mark.parametrize("row", [[], [1, 300], [1] * 34])
def test_a_bad_sequence_to_score_is_invalid_input(completer, row):
    with pytest.raises(InvalidInput, match="sequence 1"):
        completer.score([[1, 2], row])


# --- weights ---


def test_live_weights_are_those_of_the_moment_they_were_saved(client, completer, make_datum):
    session = client.start_session(SessionConfig("tiny"))
    reference = client.save_weights_for_sampler(session)
    before = completer.score([[1, 2, 3]], reference)[0]
    client.forward_backward(session, [make_datum([1, 2, 3])])
    client.await_(client.optim_step(session, 1e-2))
    assert np.array_equal(completer.score([[1, 2, 3]], reference)[0], before)
    newer = client.save_weights_for_sampler(session)
    assert completer.score([[1, 2, 3]], newer)[0].sum() > before.sum()


def test_live_weights_wait_for_what_is_queued(client, completer, make_datum):
    session = client.start_session(SessionConfig("tiny"))
    client.forward_backward(session, [make_datum([1, 2, 3])])
    client.optim_step(session, 1e-1)
    reference = client.save_weights_for_sampler(session)  # nothing was awaited
    with torch.no_grad():
        logits = session.engine.model(input_ids=torch.tensor([[1]])).logits[0, 0]
    score = completer.score([[1, 2]], reference)[0]
    np.testing.assert_allclose(score, logits.log_softmax(-1)[2], atol=1e-5)


def test_a_live_reference_lasts_until_the_next_one_or_the_end_of_the_session(client, completer):
    session = client.start_session(SessionConfig("tiny"))
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


def test_saving_a_name_again_gives_another_reference(client):
    session = client.start_session(SessionConfig("tiny"))
    assert client.save_weights_for_sampler(session, "x") != client.save_weights_for_sampler(
        session, "x"
    )
    assert client.list_checkpoints() == []  # they are no checkpoints


def test_the_default_model_is_an_option(make_kitchen, completer):
    assert parts(completer.complete([1], PARAMS)) == parts(
        completer.complete([1], replace(PARAMS, model="tiny"))
    )


@pytest.mark.parametrize("named", [None, "tiny"])
def test_the_revision_is_that_of_the_default_model_however_it_is_named(completer, named):
    opts = completer.options.model_copy(update={"revision": "v1"})
    with pytest.raises(Unsupported, match="no revision 'v1'"):
        torch_completer.complete(opts, [1], replace(PARAMS, model=named))


def test_the_revision_of_the_default_model_is_not_that_of_others(completer):
    opts = completer.options.model_copy(update={"revision": "v1"})
    torch_completer.complete(opts, [1], replace(PARAMS, model="deep"))


def test_the_seed_of_the_options_makes_the_random_weights(completer):
    scores = []
    for seed in (1, 1, 2):
        opts = completer.options.model_copy(update={"seed": seed})
        scores.append(torch_completer.score(opts, [[1, 2]], None)[0])
    assert scores[0] == scores[1] != scores[2]


def test_no_model_is_invalid_input():
    with pytest.raises(InvalidInput, match="no model"):
        torch_completer.complete(torch_completer.Options(), [1], PARAMS)


def test_the_models_used_last_stay_loaded(make_kitchen):
    completer = make_kitchen().completer
    for model in ("tiny", "deep", "tiny", "gpt2"):
        completer.complete([1], replace(PARAMS, model=model))
    assert list(torch_completer._sampler(completer.options)._loaded) == ["tiny", "gpt2"]
    completer.close()
    assert torch_completer._sampler.peek(completer.options) is None
