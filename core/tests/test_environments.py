"""Environments: `arithmetic`, how one is chosen by settings, and what is refused of one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import guess_environment
import numpy as np
import pytest
from crucible_kitchen import (
    AdapterLoadError,
    AdapterNotFound,
    Completion,
    ConfigurationError,
    Environment,
    EnvironmentOptions,
    InvalidInput,
    Kitchen,
    Observation,
    Step,
    Unavailable,
)
from crucible_kitchen.configuration.chosen import ChosenEnvironment, OneEnvironment
from crucible_kitchen.environments.arithmetic import Arithmetic, ArithmeticOptions
from crucible_kitchen.environments.guarded import Guarded
from crucible_kitchen.settings import in_code
from crucible_kitchen.testing import EnvironmentConformance
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr


def said(text: str) -> Completion:
    return Completion(text, None, None, "stop")


# --- arithmetic ---


class TestArithmetic(EnvironmentConformance):
    @pytest.fixture
    def environment(self) -> str:
        return "arithmetic"


@pytest.mark.slow
class TestGuess(EnvironmentConformance):
    """The example of the documentation."""

    completions = ("", "0", "7", "20", "no number", "9" * 20)

    @pytest.fixture
    def environment(self) -> dict[str, Any]:
        return {"use": guess_environment.Guess, "highest": 20}


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from("+-*"), st.data())
def test_every_pair_of_operands_is_a_problem_in_both_orders(
    smallest: int, more: int, operation: Any, data: st.DataObject
) -> None:
    options = ArithmeticOptions(smallest=smallest, largest=smallest + more, operation=operation)
    environment = Arithmetic(options)
    asked = [environment.reset(seed) for seed in range(environment.size)]
    operands = range(smallest, smallest + more + 1)
    assert {*asked} == {f"{a}{operation}{b}=" for a in operands for b in operands}
    seed = data.draw(st.integers(0, environment.size // 2 - 1)) * 2
    assert sorted(_operands(asked[seed])) == sorted(_operands(asked[seed + 1]))


def _operands(asked: Observation) -> list[str]:
    assert isinstance(asked, str)
    for operation in "+-*":
        asked = asked.replace(operation, " ")
    return asked.rstrip("=").split()


def test_problems_that_follow_each_other_are_spread_over_the_operands() -> None:
    environment = Arithmetic(ArithmeticOptions())
    last = [environment.reset(seed) for seed in range(environment.size - 200, environment.size)]
    tens = [int(_operands(asked)[0]) // 10 for asked in last]
    assert {*tens} == {*range(1, 10)}
    assert max(map(tens.count, tens)) < 50


@pytest.mark.parametrize(
    ("said_", "reward", "parsed"),
    [("{}", 1, True), (" {}\n", 1, True), ("{}0", 0, True), ("it is {}", 0, False), ("", 0, False)],
)
def test_the_result_in_digits_is_rewarded(said_: str, reward: float, parsed: bool) -> None:
    environment = Arithmetic(ArithmeticOptions())
    asked = environment.reset(17)
    right = sum(map(int, _operands(asked)))
    assert environment.answer == str(right)
    assert environment.step(said(said_.format(right))) == Step(reward=reward, parsed=parsed)


def test_a_negative_result_is_a_number() -> None:
    environment = Arithmetic(ArithmeticOptions(smallest=0, largest=9, operation="-"))
    seed = next(s for s in range(environment.size) if environment.reset(s) == "2-7=")
    environment.reset(seed)
    assert environment.step(said("-5")) == Step(reward=1.0)


def test_operands_of_many_digits_make_as_many_problems_as_there_are_seeds() -> None:
    environment = Arithmetic(ArithmeticOptions(largest=10**9))
    assert environment.size == 2**32
    assert environment.reset(2**32 - 1) != environment.reset(2**32 - 2)


# --- chosen by settings ---


class GuessOptions(EnvironmentOptions):
    highest: int = 9
    """Largest number to guess."""
    key: SecretStr | None = None
    """Key of a server."""


class Guess:
    def __init__(self, options: GuessOptions) -> None:
        self.highest = options.highest

    def reset(self, seed: int) -> Observation:
        self.number = random.Random(seed).randint(0, self.highest)
        return [{"role": "user", "content": f"Guess a number up to {self.highest}."}]

    def step(self, completion: Completion) -> Step:
        return Step(reward=float(completion.text == str(self.number)))


class Plain:
    def reset(self, seed: int) -> Observation:
        return "Say yes."

    def step(self, completion: Completion) -> Step:
        return Step(reward=float(completion.text == "yes"))


def made_by_a_function(options: GuessOptions) -> Environment:
    return Guess(options)


class Inherited(Guess):
    pass


def of_two_arguments(options: GuessOptions, size: int) -> Environment:
    return Guess(options)


def of_a_dictionary(options: dict[str, int]) -> Environment:
    return Plain()


def chosen(setting: Any) -> ChosenEnvironment:
    table = {"environment": setting}
    with Kitchen(settings=in_code({"workflow": table})) as kitchen:
        return kitchen.configure(OneEnvironment, table, ("workflow",)).environment


@pytest.mark.parametrize("made_by", [Guess, made_by_a_function, Inherited])
def test_a_class_or_a_function_makes_it_from_its_options(made_by: Callable[..., Any]) -> None:
    environment = chosen({"use": made_by, "highest": 3}).make()
    assert environment.reset(1) == [{"role": "user", "content": "Guess a number up to 3."}]


def test_one_without_options_takes_no_argument() -> None:
    assert chosen(Plain).make().reset(0) == "Say yes."
    with pytest.raises(ConfigurationError, match=r"environment\.size: .*Plain has no such key"):
        chosen({"use": Plain, "size": 3})


def test_an_installed_one_is_known_with_its_package() -> None:
    found = chosen("arithmetic")
    assert (found.name, found.package) == ("arithmetic", "crucible-kitchen")
    assert found.describe()["largest"] == 99


def test_one_of_a_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from crucible_kitchen import EnvironmentOptions, Step\n"
        "class Options(EnvironmentOptions):\n"
        "    word: str = 'yes'\n"
        "class Say:\n"
        "    def __init__(self, options: Options) -> None:\n"
        "        self.word = options.word\n"
        "    def reset(self, seed):\n"
        "        return f'Say {self.word}.'\n"
        "    def step(self, completion):\n"
        "        return Step(reward=float(completion.text == self.word))\n"
    )
    assert chosen({"use": f"{file}:Say", "word": "no"}).make().reset(0) == "Say no."
    with pytest.raises(AdapterNotFound, match=r"there is no 'Sat' in .*; did you mean .*:Say\?"):
        chosen(f"{file}:Sat")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("arithmetik", r"environment: no environment is named .* did you mean 'arithmetic'\?"),
        ({"use": "arithmetic", "larges": 50}, r"environment\.larges: .* did you mean 'largest'\?"),
        ({"use": "arithmetic", "largest": "many"}, r"environment\.largest: .* valid integer"),
        ({"use": "arithmetic", "largest": 5}, r"environment: largest is 5, below smallest, 10"),
        ({"name": "arithmetic"}, r'environment: name the environment: use = "<name>"'),
        ({"uses": "arithmetic"}, r"did you mean 'use', not 'uses'\?"),
        ("no.such.module:Maze", r"no.such.module:Maze: there is no module 'no.such.module'"),
        ("os:sep", r"the environment os:sep is not a class or a function"),
        (lambda x: Plain(), r"must take one argument, annotated with a class derived from"),
        (of_two_arguments, r"must take one argument"),
        (of_a_dictionary, r"must take one argument"),
        ("{use: arithmetic}", r"begins like JSON but is not valid"),
        (3, r"is not a class or a function, it is 3"),
    ],
)
def test_a_mistake_is_named_with_its_key(setting: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        chosen(setting)
    assert str(caught.value).startswith("workflow.environment")
    assert "(from code)" in str(caught.value)


def test_an_import_that_fails_is_said_to(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('no licence')")
    with pytest.raises(AdapterLoadError, match="cannot be imported: OSError: no licence"):
        chosen(f"{tmp_path}/broken.py:Maze")


def test_what_is_not_an_environment_is_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidInput, match="os:getcwdb is a bytes, which has not both methods"):
        chosen("os:getcwdb").make()


def test_one_that_cannot_be_made_is_named() -> None:
    def broken() -> Environment:
        raise KeyError("no data")

    with pytest.raises(InvalidInput, match="broken cannot be made: KeyError: 'no data'"):
        chosen(broken).make()


def test_secrets_among_its_options_are_not_shown() -> None:
    found = chosen({"use": Guess, "key": "hunter2-hunter2"})
    assert "hunter2" not in str(found.describe())
    assert "hunter2" not in repr(found)


# --- guarded ---


class Answering(Plain):
    """Returns what a test gives it."""

    def __init__(self, asked: Any = "?", step: Any = None) -> None:
        self.asked, self.answered = asked, step

    def reset(self, seed: int) -> Observation:
        if isinstance(self.asked, Exception):
            raise self.asked
        return self.asked  # type: ignore[no-any-return]

    def step(self, completion: Completion) -> Step:
        if isinstance(self.answered, Exception):
            raise self.answered
        return self.answered  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "asked",
    [
        "text",
        [{"role": "user", "content": "hi"}],
        ({"role": "system", "content": ""},),
        [1, 2],
        np.array([1, 2]),
        (np.int64(3),),
    ],
)
def test_text_messages_and_token_ids_can_be_asked(asked: Any) -> None:
    assert Guarded(Answering(asked), "it").reset(0) is asked


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("", "an empty text"),
        ([], "an empty list"),
        (None, "a NoneType, not text, messages or token ids"),
        ({"role": "user", "content": "hi"}, "a dict, not text"),
        ([{"content": "hi"}], "a list of dict"),
        ([1.5], "a list of float"),
        ([True], "a list of bool"),
        ([-1], "a list of int"),
        (["a"], "a list of str"),
        (iter([1]), "a list_iterator"),
        (KeyError("x"), "it raised KeyError: 'x'"),
    ],
)
def test_another_observation_is_refused_by_name_and_seed(asked: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^the environment it, seed 7: .*{message}"):
        Guarded(Answering(asked), "it").reset(7)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(reward=float("nan")), "the reward is nan, it must be a finite number"),
        (Step(reward=float("inf")), "the reward is inf"),
        (Step(reward="1"), "the reward is '1'"),  # type: ignore[arg-type]
        (Step(reward=1, metrics={"x": float("nan")}), "the x is nan"),
        (Step(reward=1, done=False), "the observation that follows is an empty list"),
        ((1.0, True), "step returned a tuple, not a Step"),
        (ZeroDivisionError("division by zero"), "it raised ZeroDivisionError: division by zero"),
    ],
)
def test_another_step_is_refused_by_name_seed_and_turn(step: Any, message: str) -> None:
    environment = Guarded(Answering(step=step), "it")
    environment.reset(7)
    with pytest.raises(InvalidInput, match=rf"^the environment it, seed 7, turn 1: {message}"):
        environment.step(said(""))


def test_an_episode_that_has_ended_takes_no_further_completion() -> None:
    environment = Guarded(Answering(step=Step(reward=1)), "it")
    with pytest.raises(InvalidInput, match="the episode has ended; reset begins the next"):
        environment.step(said(""))
    environment.reset(7)
    environment.step(said(""))
    with pytest.raises(InvalidInput, match="seed 7, turn 2: the episode has ended"):
        environment.step(said(""))


def test_an_error_of_a_server_stays_what_it_is() -> None:
    environment = Guarded(Answering(Unavailable("it is away")), "it")
    with pytest.raises(Unavailable, match="it is away") as caught:
        environment.reset(7)
    assert caught.value.__notes__ == ["in the environment it, seed 7"]


@pytest.mark.parametrize("size", [0, -1, 2**32 + 1, 2.5, "3"])
def test_a_size_that_no_number_of_seeds_has_is_refused(size: Any) -> None:
    environment = Answering()
    environment.size = size  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="the environment it: its size is"):
        _ = Guarded(environment, "it").size


@pytest.mark.parametrize("count", [0, -2, 1.5, "2"])
def test_what_is_held_out_together_is_a_number_of_problems(count: Any) -> None:
    environment = Answering()
    environment.held_together = count  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="the environment it: its held_together is"):
        _ = Guarded(environment, "it").held_together


def test_closing_it_closes_what_can_be_closed() -> None:
    closed = []

    class Closing(Plain):
        def close(self) -> None:
            closed.append("it")

    Guarded(Closing(), "it").close()
    Guarded(Plain(), "plain").close()
    assert closed == ["it"]
