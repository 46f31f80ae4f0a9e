"""Episodes: what is asked, what is kept of what was sampled, and when they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from character_tokenizers import Thinking
from crucible_kitchen import AdapterError, Completion, InvalidInput, SamplingParams
from crucible_kitchen.chat import ChatTemplate
from crucible_kitchen.environments import Observation, Step
from crucible_kitchen.environments.guarded import Guarded
from crucible_kitchen.workflows.episodes.play import Episode, Rules, play
from crucible_kitchen.workflows.problems.pool import Source
from crucible_kitchen.workflows.problems.prepare import Problem
from hypothesis import given
from hypothesis import strategies as st
from kitchen_noop.tokenizer import TOKENIZER, CharTokenizer

RULES = Rules(ChatTemplate(TOKENIZER), max_turns=4)
END = TOKENIZER.eos_token_id


class Scripted:
    """A completer that says given answers, turn by turn, and remembers what it was asked."""

    adapter = "scripted"

    def __init__(self, *answers: str) -> None:
        self.answers = answers
        self.asked: list[tuple[list[list[int]], SamplingParams]] = []

    def complete_batch(self, prompts: list[list[int]], params: SamplingParams) -> list[Any]:
        text = self.answers[len(self.asked) % len(self.answers)]
        self.asked.append((prompts, params))
        return [self.completion(text, params.max_tokens) for _ in prompts]

    def completion(self, text: str, limit: int) -> Completion:
        tokens = np.array([*TOKENIZER.encode(text), END])[:limit]
        logprobs = -np.arange(1, len(tokens) + 1, dtype=np.float32)
        whole = len(tokens) == len(text) + 1
        return Completion(text, tokens, logprobs, "stop" if whole else "length")


class Talk:
    """An environment of given observations; each turn is worth its number."""

    answer = "42"
    tools = None

    def __init__(self, *observations: Observation, last: Mapping[str, Any] | None = None) -> None:
        self.observations, self.last = observations, {"done": True, **(last or {})}

    def reset(self, seed: int) -> Observation:
        self.turn = 0
        return self.observations[0]

    def step(self, completion: Completion) -> Step:
        self.turn += 1
        if self.turn < len(self.observations):
            return Step(reward=self.turn, done=False, observation=self.observations[self.turn])
        return Step(reward=self.turn, **self.last)


def problem(make: Callable[[], Any], seed: int = 0) -> Problem:
    return Problem(Source("talk", lambda: Guarded(make(), "talk")), seed)


play_with: Any = play
"""Its completer is one of ours here, which is not a port."""


def played(
    environment: Callable[[], Any], completer: Scripted, rules: Rules = RULES, **params: Any
) -> Episode:
    sampling = SamplingParams(**{"max_tokens": 16, **params})
    groups: list[list[Episode]] = play_with(
        completer, [problem(environment)], sampling, rules, seed=0, step=0
    )
    return groups[0][0]


def text_of(tokens: Sequence[int]) -> str:
    return TOKENIZER.decode(tokens)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_a_text_is_asked_as_it_is_and_the_completion_is_kept_as_sampled() -> None:
    completer = Scripted("12")
    episode = played(lambda: Talk("5+7="), completer)
    assert text_of(episode.tokens.tolist()) == "5+7=12<|im_end|>"
    assert episode.sampled.tolist() == [False] * 4 + [True] * 3
    assert episode.logprobs.tolist() == [-1, -2, -3]
    assert (episode.reward, episode.turns, episode.truncated) == (1.0, 1, False)
    assert episode.sample.prompt == "5+7="
    assert episode.sample.completion == "12<|im_end|>"
    assert (episode.sample.reward, episode.sample.answer) == (1.0, "42")
    [(prompts, params)] = completer.asked
    assert prompts == [TOKENIZER.encode("5+7=")]
    assert params.logprobs


def test_messages_are_asked_through_the_chat_template() -> None:
    completer = Scripted("hello")
    played(lambda: Talk([user("hi")]), completer)
    [([prompt], _)] = completer.asked
    assert text_of(prompt) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_token_ids_are_asked_as_they_are() -> None:
    completer = Scripted("x")
    played(lambda: Talk([7, 8, 9]), completer)
    assert completer.asked[0][0] == [[7, 8, 9]]


def test_a_conversation_goes_on_with_new_messages_alone_after_the_sampled_tokens() -> None:
    completer = Scripted("one", "two", "three")
    asks = ([user("a")], [user("b")], [{"role": "user", "content": "c"}])
    episode = played(lambda: Talk(*asks), completer)
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>"
    expected = "\n".join(
        turn.format(*each) for each in (("a", "one"), ("b", "two"), ("c", "three"))
    )
    assert text_of(episode.tokens.tolist()) == expected
    sampled = text_of(episode.tokens[episode.sampled].tolist())
    assert sampled == "one<|im_end|>two<|im_end|>three<|im_end|>"
    assert len(episode.logprobs) == episode.sampled.sum()
    assert (episode.reward, episode.turns) == (6.0, 3)


def test_each_turn_is_asked_with_the_very_tokens_of_the_turns_before() -> None:
    completer = Scripted("one", "two")
    episode = played(lambda: Talk([user("a")], [user("b")]), completer)
    (first, _), (second, _) = completer.asked
    tokens = episode.tokens.tolist()
    assert tokens[: len(first[0])] == first[0]
    assert tokens[: len(second[0])] == second[0]


def test_a_text_goes_on_with_a_text_and_token_ids_with_token_ids() -> None:
    episode = played(lambda: Talk("a", "b"), Scripted("x"))
    assert text_of(episode.tokens.tolist()) == "ax<|im_end|>bx<|im_end|>"
    episode = played(lambda: Talk([70], [71, 72]), Scripted("x"))
    x = TOKENIZER.encode("x")
    assert episode.tokens.tolist() == [70, *x, END, 71, 72, *x, END]


def test_thoughts_stay_where_the_template_takes_them_out_of_earlier_turns() -> None:
    class Thinker(Scripted):
        def completion(self, text: str, limit: int) -> Completion:
            tokens = np.array(Thinking().encode(text + ";"))
            return Completion(text, tokens, np.zeros(len(tokens), np.float32), "stop")

    completer = Thinker("hm</think>one", "so</think>two")
    rules = Rules(ChatTemplate(Thinking()), max_turns=2)
    episode = played(lambda: Talk([user("a")], [user("b")]), completer, rules)
    whole = "<user>a;<assistant>hm</think>one;<user>b;<assistant>so</think>two;"
    assert Thinking().decode(episode.tokens.tolist()) == whole


def test_a_template_that_does_not_show_answers_cannot_go_on() -> None:
    class Silent(CharTokenizer):
        def apply_chat_template(self, messages: Any, **kwargs: Any) -> Any:
            asked = [each for each in messages if each["role"] == "user"]
            return super().apply_chat_template(asked, **kwargs)

    rules = Rules(ChatTemplate(Silent()), max_turns=2)
    with pytest.raises(InvalidInput, match="turn 1: the chat template does not show what the ass"):
        played(lambda: Talk([user("a")], [user("b")]), Scripted("x"), rules)


def test_a_completion_that_is_cut_off_ends_the_episode_as_truncated() -> None:
    episode = played(
        lambda: Talk([user("a")], [user("b")]), Scripted("a long answer"), max_tokens=3
    )
    assert episode.truncated
    assert (episode.turns, len(episode.logprobs)) == (1, 3)


def test_the_last_turn_ends_the_episode_as_truncated_unless_it_is_done() -> None:
    rules = Rules(RULES.template, max_turns=2)
    assert played(lambda: Talk("a", "b", "c"), Scripted("x"), rules).truncated
    assert not played(lambda: Talk("a", "b"), Scripted("x"), rules).truncated


def test_a_full_context_ends_the_episode_as_truncated_after_the_last_completion() -> None:
    rules = Rules(RULES.template, max_turns=4, max_length=6)
    episode = played(lambda: Talk("abc", "a very long observation"), Scripted("x"), rules)
    assert text_of(episode.tokens.tolist()) == "abcx<|im_end|>"
    assert episode.truncated
    assert episode.sampled[-1]


@given(st.integers(1, 12), st.integers(1, 12))
def test_no_episode_is_longer_than_the_model_can_read(max_length: int, prompt: int) -> None:
    rules = Rules(RULES.template, max_turns=3, max_length=max_length)
    environment = lambda: Talk("p" * prompt, "q", "r")  # noqa: E731
    if prompt > max_length:
        with pytest.raises(InvalidInput, match="talk, seed 0, what is asked first: it has"):
            played(environment, Scripted("xy"), rules)
        return
    episode = played(environment, Scripted("xy"), rules)
    assert len(episode.tokens) - 1 <= max_length
    datum = episode.datum(advantages=1.0)
    assert datum.model_input.length <= max_length


def test_episodes_of_a_problem_are_together_and_all_are_sampled_in_one_call_a_turn() -> None:
    completer = Scripted("x")
    problems = [problem(lambda: Talk("a", "b"), 0), problem(lambda: Talk("c"), 1)]
    groups = play_with(completer, problems, SamplingParams(4, n=3), RULES, seed=0, step=0)
    assert [[e.sample.prompt for e in group] for group in groups] == [["a"] * 3, ["c"] * 3]
    assert [len(prompts) for prompts, _ in completer.asked] == [6, 3]
    assert all(params.n == 1 for _, params in completer.asked)


def test_seeds_are_a_function_of_the_runs_seed_the_step_and_the_turn() -> None:
    def seeds(seed: int, step: int) -> list[int | None]:
        completer = Scripted("x")
        problems = [problem(lambda: Talk("a", "b"))]
        play_with(completer, problems, SamplingParams(4), RULES, seed=seed, step=step)
        return [params.seed for _, params in completer.asked]

    first = seeds(1, 2)
    assert len(set(first)) == 2
    assert first == seeds(1, 2)
    assert not {*first} & {*seeds(1, 3)}
    assert not {*first} & {*seeds(2, 2)}


def test_completions_of_different_limits_do_not_share_their_seeds() -> None:
    completer, rules = Scripted("x"), Rules(RULES.template, max_turns=1, max_length=9)
    talks = [lambda: Talk("p" * 2), lambda: Talk("p" * 8)]
    problems = [problem(talk) for talk in talks * 2]
    play_with(completer, problems, SamplingParams(8), rules, seed=0, step=0)
    (first, roomy), (second, tight) = completer.asked
    assert [len(first), len(second)] == [2, 2]
    assert [roomy.max_tokens, tight.max_tokens] == [8, 2]
    assert tight.seed == (roomy.seed or 0) + 2  # completion k of a call has the seed plus k


def test_a_conversation_is_stopped_by_the_end_of_a_turn_where_that_is_not_the_end_token() -> None:
    class Base(CharTokenizer):
        eos_token_id = 5  # as base models have it, whose chat template came later

    rules = Rules(ChatTemplate(Base()), max_turns=1)
    talks: list[Callable[[], Talk]] = [lambda: Talk([user("a")]), lambda: Talk("a")]
    stops = []
    for talk in talks:
        completer = Scripted("x")
        played(talk, completer, rules)
        stops.append(completer.asked[0][1].stop)
    assert stops == [(END,), None]


def test_what_an_environment_measures_last_and_whether_it_parsed_all_is_kept() -> None:
    last = {"metrics": {"moves": 3.0}, "parsed": False}
    episode = played(lambda: Talk("a", "b", last=last), Scripted("x"))
    assert episode.metrics == {"moves": 3.0}
    assert not episode.parsed


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused_with_its_place(reward: float) -> None:
    class Broken(Talk):
        def step(self, completion: Completion) -> Step:
            return Step(reward=reward)

    with pytest.raises(InvalidInput, match="talk, seed 0, turn 1: the reward"):
        played(lambda: Broken("a"), Scripted("x"))


def test_an_environment_that_raises_is_named_with_seed_and_turn() -> None:
    class Broken(Talk):
        def step(self, completion: Completion) -> Step:
            raise KeyError("board")

    with pytest.raises(InvalidInput, match=r"talk, seed 0, turn 1: it raised KeyError: 'board'"):
        played(lambda: Broken("a"), Scripted("x"))


def test_messages_cannot_follow_a_text() -> None:
    with pytest.raises(InvalidInput, match="talk, seed 0, turn 1: messages cannot follow"):
        played(lambda: Talk("a", [user("b")]), Scripted("x"))


def test_a_completion_without_log_probabilities_is_refused() -> None:
    class Mute(Scripted):
        def completion(self, text: str, limit: int) -> Completion:
            return Completion(text, np.array([1]), None, "stop")

    with pytest.raises(AdapterError, match="'scripted' returned a completion without token ids"):
        played(lambda: Talk("a"), Mute("x"))


def test_environments_are_given_back_and_used_again() -> None:
    made = []

    def make() -> Guarded:
        made.append(Talk("a"))
        return Guarded(made[-1], "talk")

    one = Problem(Source("talk", make), 0)
    for _ in range(3):
        play_with(Scripted("x"), [one], SamplingParams(4, n=2), RULES, seed=0, step=0)
    assert len(made) == 2


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4))
def test_each_sampled_token_is_a_target_with_its_own_numbers(answers: list[str]) -> None:
    asks = [[user(text)] for text in answers]
    episode = played(lambda: Talk(*asks), Scripted(*answers))
    numbers = np.arange(1, len(episode.logprobs) + 1, dtype=np.float32)
    datum = episode.datum(advantages=numbers, logprobs=episode.logprobs)
    inputs = datum.loss_fn_inputs
    assert [*datum.model_input.to_ints(), inputs["target_tokens"][-1]] == episode.tokens.tolist()
    np.testing.assert_array_equal(episode.of_sampled(inputs["advantages"]), numbers)
    np.testing.assert_array_equal(episode.of_sampled(inputs["logprobs"]), episode.logprobs)
    assert np.count_nonzero(inputs["advantages"]) == len(numbers)
    said = "".join(f"{answer}<|im_end|>" for answer in answers)
    assert text_of(episode.of_sampled(inputs["target_tokens"]).tolist()) == said
