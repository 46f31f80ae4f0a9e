"""Problems: of an environment or of rows, in an order that is a function of seed and step."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from crucible_kitchen import (
    Completion,
    ConfigurationError,
    InvalidInput,
    Kitchen,
    Observation,
    Step,
    TrainingConfig,
)
from crucible_kitchen.settings import in_code
from crucible_kitchen.workflows import Batches, Problem, Problems, ProblemsConfig, prepare_problems
from crucible_kitchen.workflows.problems.pool import Source
from crucible_kitchen.workflows.problems.prepare import HELD_OUT, Endless
from hypothesis import given
from hypothesis import strategies as st
from rows_in_memory import Row, RowsInMemory


class Config(ProblemsConfig, TrainingConfig):
    model: str = "any"


class Unrewarded(Config):
    needs_reward = False


class Echo:
    """Asks to say its seed. `made` holds those that were made, `closed` those that were closed."""

    made: ClassVar[list[Echo]] = []
    closed: ClassVar[list[Echo]] = []

    def __init__(self) -> None:
        self.made.append(self)

    def reset(self, seed: int) -> Observation:
        self.seed = seed
        return f"Say {seed}."

    def step(self, completion: Completion) -> Step:
        return Step(reward=float(completion.text == str(self.seed)))

    def close(self) -> None:
        self.closed.append(self)


class Ten(Echo):
    size = 10


class Twins(Ten):
    held_together = 2


class Broken(Echo):
    def reset(self, seed: int) -> Observation:
        raise KeyError("no data")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    Echo.made.clear()
    Echo.closed.clear()


def said(text: str) -> Completion:
    return Completion(text, None, None, "stop")


def prepared(
    settings: Mapping[str, Any],
    rows: Mapping[str, Sequence[Row]] | None = None,
    config: type[Config] = Config,
) -> Problems:
    adapters = {"dataset_store": RowsInMemory(rows)} if rows else {}
    kitchen = Kitchen(settings=in_code({"adapters": adapters, "workflow": settings}))
    return prepare_problems(kitchen, None, kitchen.configure(config, settings, ("workflow",)))


def known(problems: Problems) -> Sequence[Problem]:
    """Return the problems to train on, whose number is known."""
    assert isinstance(problems.train, Sequence)
    return problems.train


def seeds(problems: Sequence[Problem] | Batches[Problem]) -> list[int]:
    assert isinstance(problems, Sequence)
    return [problem.seed for problem in problems]


def played(problem: Problem, text: str) -> tuple[Observation, Step]:
    environment = problem.environment()
    try:
        return environment.reset(problem.seed), environment.step(said(text))
    finally:
        problem.release(environment)


# --- of an environment ---


def test_the_problems_of_an_environment_are_its_seeds() -> None:
    problems = prepared({"environment": Ten})
    assert (seeds(problems.train), seeds(problems.test)) == ([*range(10)], [])
    assert played(known(problems)[3], "3") == ("Say 3.", Step(reward=1.0))


@pytest.mark.parametrize(("size", "count"), [(3, 3), (0.25, 3), (9, 9)])
def test_the_last_problems_are_held_out(size: float, count: int) -> None:
    problems = prepared({"environment": Ten, "test_size": size})
    assert seeds(problems.train) == [*range(10 - count)]
    assert seeds(problems.test) == [*range(10 - count, 10)]


@pytest.mark.parametrize(("size", "count"), [(3, 4), (4, 4), (0.25, 4), (1, 2), (7, 8)])
def test_problems_that_belong_together_are_held_out_together(size: float, count: int) -> None:
    problems = prepared({"environment": Twins, "test_size": size})
    assert seeds(problems.train) == [*range(10 - count)]
    assert seeds(problems.test) == [*range(10 - count, 10)]
    with pytest.raises(ConfigurationError, match="leaves nothing to train on"):
        prepared({"environment": Twins, "test_size": 9})


def test_no_sum_that_is_held_out_is_trained_on_the_other_way_round() -> None:
    problems = prepared({"environment": {"use": "arithmetic", "largest": 20}, "test_size": 5})
    trained, tested = (
        [str(played(problem, "")[0]).rstrip("=").split("+") for problem in of]
        for of in (known(problems), problems.test)
    )
    assert len(tested) == 6
    assert not {tuple(sorted(pair)) for pair in trained} & {tuple(sorted(pair)) for pair in tested}


@pytest.mark.parametrize("size", [10, 11, 0.95])
def test_something_must_be_left_to_train_on(size: float) -> None:
    with pytest.raises(ConfigurationError, match=r"workflow\.test_size: .* leaves nothing .* 10"):
        prepared({"environment": Ten, "test_size": size})


def test_without_an_end_each_step_has_the_next_seeds() -> None:
    train = prepared({"environment": Echo, "max_steps": 5, "batch_size": 3}).train
    assert isinstance(train, Batches)
    assert train.per_epoch is None
    found = [(epoch, step, seeds(batch)) for epoch, step, batch in train.between(1, 3)]
    assert found == [(0, 1, [3, 4, 5]), (0, 2, [6, 7, 8])]


@given(st.integers(0, 1000), st.integers(0, 20), st.integers(1, 50))
def test_a_step_without_an_end_is_the_same_wherever_it_begins(
    start: int, more: int, size: int
) -> None:
    endless = Endless(Source("it", lambda: pytest.fail("nothing is played")), size)
    whole = [(step, seeds(batch)) for _, step, batch in endless.between(start, start + more + 1)]
    [(_, step, last)] = endless.between(start + more, start + more + 1)
    assert whole[-1] == (step, seeds(last))
    assert [seed for _, each in whole for seed in each] == [
        *range(start * size, (start + more + 1) * size)
    ]


def test_without_an_end_what_is_held_out_is_never_trained_on() -> None:
    problems = prepared({"environment": Echo, "max_steps": 5, "test_size": 2})
    assert seeds(problems.test) == [HELD_OUT, HELD_OUT + 1]
    assert isinstance(problems.train, Batches)
    with pytest.raises(InvalidInput, match="would train on the seeds from 2147483648"):
        next(problems.train.between(HELD_OUT // 32, HELD_OUT // 32 + 1))


def test_without_an_end_the_number_of_steps_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match=r"workflow\.max_steps: .*Echo has problems with"):
        prepared({"environment": Echo})


def test_of_problems_without_an_end_no_share_is_held_out() -> None:
    with pytest.raises(ConfigurationError, match=r"workflow\.test_size: .* a number of them, not"):
        prepared({"environment": Echo, "max_steps": 5, "test_size": 0.1})


def test_what_a_run_depends_on_names_the_environment_and_its_package() -> None:
    problems = prepared({"environment": {"use": "arithmetic", "largest": 20}})
    about = problems.depends_on["environment"]
    assert (about["name"], about["package"], about["size"]) == (
        "arithmetic",
        "crucible-kitchen",
        132,
    )
    assert about["options"]["largest"] == 20
    assert about["version"]


def test_the_record_shows_the_first_problems() -> None:
    facts = prepared({"environment": Ten, "test_size": 2}).facts
    assert facts == {
        "problems": {"train": 8, "test": 2},
        "examples": ["Say 0.", "Say 1.", "Say 2."],
    }


def test_an_environment_that_does_not_work_is_found_before_the_first_step() -> None:
    with pytest.raises(InvalidInput, match=r"Broken, seed 0: it raised KeyError: 'no data'"):
        prepared({"environment": Broken, "max_steps": 1})


def test_the_answer_of_a_problem_is_known_where_the_environment_knows_it() -> None:
    problems = prepared({"environment": {"use": "arithmetic", "smallest": 2, "largest": 2}})
    assert known(problems)[0].answer == "4"
    assert known(prepared({"environment": Ten}))[0].answer is None


# --- lent and closed ---


def test_an_environment_that_was_released_is_used_again() -> None:
    [problem, *_] = known(prepared({"environment": Ten}))
    first, second = problem.environment(), problem.environment()
    assert first is not second
    problem.release(first)
    assert problem.environment() is first
    assert len(Echo.made) == 2


def test_threads_are_lent_different_environments() -> None:
    [problem, *_] = known(prepared({"environment": Ten}))
    lent: list[Any] = []
    threads = [
        threading.Thread(target=lambda: lent.append(problem.environment())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in lent}) == 8


def test_each_environment_is_closed_once() -> None:
    problems = prepared({"environment": Ten})
    [problem, *_] = known(problems)
    problem.environment()
    problem.environment()
    problems.close()
    problems.close()
    assert Echo.closed == Echo.made


def test_environments_are_closed_when_the_problems_are_gone() -> None:
    problems = prepared({"environment": Ten})
    assert not Echo.closed
    del problems
    gc.collect()
    assert Echo.closed == Echo.made


# --- of rows ---

SUMS = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(10)]
REWARDED = {"dataset": "x", "reward": "final_answer"}


def length_of(completion: Completion, row: Mapping[str, Any]) -> float:
    return len(completion.text) / len(row["prompt"])


def test_rows_with_a_reward_are_problems() -> None:
    problems = prepared(REWARDED, {"train": SUMS})
    assert len(known(problems)) == 10
    assert played(known(problems)[3], "it is 6") == ("3+3=", Step(reward=1.0))
    assert known(problems)[3].answer == "6"


def test_a_function_may_be_the_reward() -> None:
    problems = prepared({"dataset": "x", "reward": length_of}, {"train": SUMS})
    assert played(known(problems)[0], "12345678")[1].reward == 2.0


def test_a_reward_is_found_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def short(completion, row):\n    return -len(completion.text)"
    )
    problems = prepared({"dataset": "x", "reward": f"{tmp_path}/mine.py:short"}, {"train": SUMS})
    assert played(known(problems)[0], "abc")[1].reward == -3


def test_a_reward_may_return_a_step() -> None:
    def reward(completion: Completion, row: Mapping[str, Any]) -> Step:
        return Step(reward=0.5, metrics={"digits": 2.0}, parsed=False)

    problems = prepared({"dataset": "x", "reward": reward}, {"train": SUMS})
    assert played(known(problems)[0], "")[1] == Step(
        reward=0.5, metrics={"digits": 2.0}, parsed=False
    )


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (float("nan"), "the reward is nan"),
        (None, "the reward is None"),
        (Step(reward=1, done=False, observation="more"), "asks for another turn"),
    ],
)
def test_a_reward_that_is_none_is_refused_with_its_row(result: Any, message: str) -> None:
    problems = prepared({"dataset": "x", "reward": lambda *_: result}, {"train": SUMS})
    with pytest.raises(InvalidInput, match=message) as caught:
        played(known(problems)[4], "")
    assert known(problems)[4].name == "x [train], row 4"
    assert "x [train], row 4" in str([caught.value, *getattr(caught.value, "__notes__", ())])


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1+1?"},
    {"role": "assistant", "content": "2"},
]


@pytest.mark.parametrize(
    ("settings", "row", "asked"),
    [
        ({}, {"prompt": "1+1="}, "1+1="),
        ({}, {"prompt": CHAT[:2]}, CHAT[:2]),
        ({"prompt": "{a}+{b}="}, {"a": 1, "b": 2}, "1+2="),
        ({"prompt": "{a}?", "as_chat": True}, {"a": 1}, [{"role": "user", "content": "1?"}]),
        ({"messages_field": "messages"}, {"messages": CHAT}, CHAT[:2]),
        ({"messages_field": "m"}, {"m": [{"from": "human", "value": "hi"}]}, None),
    ],
)
def test_what_is_asked_is_the_prompt_of_the_row(
    settings: dict[str, Any], row: Row, asked: Observation | None
) -> None:
    problems = prepared({"dataset": "x", "reward": length_of, **settings}, {"train": [row]})
    environment = known(problems)[0].environment()
    found = environment.reset(0)
    assert found == (asked or [{"role": "user", "content": "hi"}])


def test_the_tools_of_a_row_are_those_of_its_problem() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    rows: list[Row] = [{"prompt": "1", "tools": [tool]}, {"prompt": "2"}]
    problems = prepared({"dataset": "x", "reward": length_of}, {"train": rows})
    found = []
    for problem in known(problems):
        environment = problem.environment()
        environment.reset(problem.seed)
        found.append(environment.tools)
        problem.release(environment)
    assert found == [[tool], None]


@pytest.mark.parametrize(
    ("settings", "row", "message"),
    [
        ({}, {"question": "?"}, r"no field 'prompt' \(prompt, .*; it has 'question'"),
        ({}, {"prompt": 3}, "its prompt is a int, not text or messages"),
        ({}, {"prompt": ""}, "its prompt is empty"),
        ({"prompt": "{a}"}, {"b": 1}, "no field 'a', which the template prompt"),
        ({"messages_field": "m"}, {"prompt": "1"}, r"no field 'm' \(messages_field\)"),
        ({"messages_field": "m"}, {"m": CHAT[2:]}, "nothing that the model is asked"),
        ({}, {"prompt": "1", "chat_template_kwargs": {"a": 1}}, "has chat_template_kwargs of its"),
        ({"reward": "final_answer"}, {"prompt": "1"}, r"no field 'answer' with the right answer"),
        ({"reward": "final_answer"}, {"prompt": "1", "answer": "?"}, "no number in its 'answer'"),
    ],
)
def test_every_row_that_cannot_be_asked_is_named_before_the_first_step(
    settings: dict[str, Any], row: Row, message: str
) -> None:
    good = {"prompt": "1", "answer": "1", "a": 1, "m": CHAT}
    rows = {"train": [good, row, row]}
    with pytest.raises(InvalidInput, match=r"2 rows of x \[train\] cannot be") as caught:
        prepared({"dataset": "x", "reward": length_of, **settings}, rows)
    assert "row 1, row 2: " in str(caught.value)
    assert caught.match(message)


def test_another_field_may_hold_the_right_answer() -> None:
    rows = [{"prompt": "1", "label": 3}]
    problems = prepared({**REWARDED, "answer_field": "label"}, {"train": rows})
    assert played(known(problems)[0], "3")[1].reward == 1
    assert known(problems)[0].answer == "3"


def test_random_rows_are_held_out_and_the_same_ones_each_time() -> None:
    settings = {**REWARDED, "test_size": 3, "seed": 5}
    one, two = (prepared(settings, {"train": SUMS}) for _ in range(2))
    asked = [
        [played(problem, "")[0] for problem in problems]
        for problems in (known(one), one.test, two.test)
    ]
    assert asked[1] == asked[2]
    assert len(asked[1]) == 3
    row = str(asked[1][0]).partition("+")[0]
    assert one.test[0].name == f"x [train], row {row}"
    assert {*asked[0], *asked[1]} == {row["prompt"] for row in SUMS}


def test_rows_of_another_split_are_evaluated_on() -> None:
    rows = {"train": SUMS[:6], "test": SUMS[6:]}
    problems = prepared({**REWARDED, "test_split": "test", "test_size": 2}, rows)
    assert [played(problem, "")[0] for problem in problems.test] == ["6+6=", "7+7="]


def test_rows_to_evaluate_on_that_are_trained_on_as_well_are_counted() -> None:
    rows = {"train": SUMS, "test": [*SUMS[:2], {"prompt": "50+50=", "answer": "100"}]}
    facts = prepared({**REWARDED, "test_split": "test"}, rows).facts
    assert facts["problems"] == {"train": 10, "test": 3, "also_in_train": 2}


def test_the_record_has_a_digest_of_the_rows() -> None:
    before, same, after = (
        prepared({**REWARDED, "test_size": 2}, {"train": rows}).depends_on
        for rows in (SUMS, SUMS, [*SUMS[:-1], {"prompt": "9+9=", "answer": "19"}])
    )
    assert before == same
    assert {*before} == {"train", "test"}
    assert before != after


def test_a_prompt_data_set_needs_no_reward_where_nothing_is_rewarded() -> None:
    problems = prepared({"dataset": "x"}, {"train": SUMS}, Unrewarded)
    assert played(known(problems)[1], "2") == ("1+1=", Step(reward=0.0))


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, 'give environment, or dataset and reward, such as "final_answer"'),
        ({"dataset": "x"}, "dataset needs a reward for each answer"),
        ({"reward": "final_answer"}, "give environment, or dataset and reward"),
        (
            {"environment": "arithmetic", **REWARDED},
            "dataset and reward cannot be given with an en",
        ),
        ({"environment": "arithmetic", "prompt": "{a}"}, "prompt cannot be given with an envir"),
        ({**REWARDED, "prompt": "{a}", "messages_field": "m"}, "say different things of one row"),
        ({**REWARDED, "test_size": 2.5}, "a whole number of problems, or a fraction below 1"),
        ({"dataset": "x", "reward": "final"}, r"workflow\.reward: no reward is named 'final'"),
        ({"dataset": "x", "reward": "os:sep"}, r"workflow\.reward: .* os:sep is not a function"),
        (
            {"dataset": "x", "reward": "no.such:r"},
            r"workflow\.reward: .* there is no module 'no\.such'",
        ),
        ({"dataset": "x", "reward": "os:getcw"}, r"did you mean os:getcwd"),
    ],
)
def test_a_mistake_in_the_settings_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prepared(settings)


def test_an_environment_needs_no_dataset_store() -> None:
    assert "dataset_store" not in Config(environment="arithmetic").required_ports()
    assert "dataset_store" in Config(dataset="x", reward="final_answer").required_ports()


def test_a_record_shows_the_environment_and_the_reward_as_they_were_written() -> None:
    shown = Config(environment={"use": "arithmetic", "largest": 20}).model_dump(mode="json")
    assert shown["environment"] == {
        "use": "arithmetic",
        "smallest": 10,
        "largest": 20,
        "operation": "+",
    }
    shown = Config(dataset="x", reward=length_of).model_dump(mode="json")
    assert shown["reward"].endswith("test_problems:length_of")
