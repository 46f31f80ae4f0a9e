"""Objects written for TRL: what is asked, what tools answer, the reward, what is refused; each
held against what TRL itself makes of the same object and the same completions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from crucible_environment_trl.environment import Trl
from crucible_environment_trl.options import TrlOptions
from crucible_kitchen import Completion, ConfigurationError, InvalidInput, Kitchen, Step
from crucible_kitchen.settings import in_code
from crucible_kitchen.workflows import ProblemsConfig

GUESSING = Path(__file__).with_name("guessing.py")


def made(name: str = "Guessing", **options: Any) -> Trl:
    functions = [f"{GUESSING}:{each}" for each in options.pop("reward_functions", ())]
    return Trl(TrlOptions(factory=f"{GUESSING}:{name}", reward_functions=functions, **options))


def said(environment: Trl, text: str) -> Step:
    return environment.step(Completion(text, None, None, "stop"))


def calling(name: str, **arguments: Any) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


def message(step: Step) -> dict[str, Any]:
    """Return the one message that follows a step."""
    [found] = list(step.observation)
    assert isinstance(found, dict)
    return found


def rows(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


# --- an episode ---


def test_what_reset_returns_follows_the_prompt_in_the_users_message() -> None:
    asked = made(prompt="Hello. ").reset(0)
    assert asked == [{"role": "user", "content": "Hello. Guess my number, 0 to 9."}]


def test_tools_are_called_until_a_completion_calls_none_and_then_there_is_a_reward() -> None:
    environment = made()
    environment.reset(1)
    number = environment._object.number
    first = said(environment, "Let me ask. " + calling("is_larger", than=number))
    assert first.observation == [{"role": "tool", "name": "is_larger", "content": "False"}]
    assert (first.done, first.reward) == (False, 0)
    second = said(environment, calling("say", number=number))
    assert second.observation == [{"role": "tool", "name": "say", "content": "right"}]
    last = said(environment, "There it is.")
    assert (last.done, last.parsed) == (True, True)
    assert last.reward == pytest.approx(0.99)
    assert last.metrics == {"tool_calls": 2, "tool_failures": 0}


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (calling("fail"), {"error": "out of order"}),
        (calling("jump", far=1), {"error": "Tool jump not found."}),
        (calling("reset"), {"error": "Tool reset not found."}),
        (calling("get_reward"), {"error": "Tool get_reward not found."}),
        (calling("_helper"), {"error": "Tool _helper not found."}),
    ],
)
def test_a_call_that_fails_is_answered_with_its_error(call: str, answer: dict[str, str]) -> None:
    environment = made()
    environment.reset(0)
    step = said(environment, call)
    assert (message(step)["content"], step.done) == (str(answer), False)
    assert step.metrics == {"tool_calls": 1, "tool_failures": 1}


def test_wrong_arguments_are_an_error_of_the_tool() -> None:
    environment = made()
    environment.reset(0)
    step = said(environment, calling("is_larger", as_=3))
    assert "unexpected keyword argument 'as_'" in message(step)["content"]


@pytest.mark.parametrize("broken", ['{"name": "say"', '{"arguments": {}}', '["say"]', "say(3)"])
def test_a_broken_call_ends_the_episode_and_is_not_parsed(broken: str) -> None:
    environment = made()
    environment.reset(0)
    step = said(environment, f"<tool_call>{broken}</tool_call>")
    assert (step.done, step.parsed) == (True, False)


def test_calls_beyond_the_limit_are_not_made() -> None:
    environment = made(max_tool_calling_iterations=1)
    environment.reset(0)
    assert not said(environment, calling("is_larger", than=3)).done
    last = said(environment, calling("is_larger", than=4))
    assert last.done
    assert last.metrics["tool_calls"] == 1


def test_another_format_of_calls_is_one_of_trls() -> None:
    environment = made(tool_format="qwen3_5")
    environment.reset(0)
    call = "<tool_call>\n<function=is_larger>\n<parameter=than>\n4\n</parameter>\n</function>\n"
    step = said(environment, f"{call}</tool_call>")
    # It was compared with an integer, as the tool's schema says.
    assert message(step)["content"] in ("True", "False")


# --- rows and reward functions ---


def test_rows_are_problems_whose_fields_reset_and_reward_functions_get(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    path = rows(
        tmp_path,
        {"prompt": "What is two? ", "answer": "2"},
        {"prompt": [system, {"role": "user", "content": "And three?"}], "answer": "3"},
    )
    environment = made("Silent", dataset=path, reward_functions=("contains_answer", "looked_up"))
    assert environment.size == 2
    assert environment.reset(1) == [system, {"role": "user", "content": "And three?"}]
    assert environment.answer == "3"
    assert said(environment, "It is 3.").reward == 1
    assert environment.reset(0) == [{"role": "user", "content": "What is two? "}]
    said(environment, calling("look_up", word="two"))
    last = said(environment, "It is 2.")
    assert last.reward == 1.5
    assert last.metrics == {"messages": 3, "tool_calls": 1, "tool_failures": 0}


def test_only_line_feeds_separate_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    text = json.dumps({"prompt": "a\u2028b\x85c", "answer": "1"}, ensure_ascii=False)
    path.write_bytes(f"{text}\r\n{text}".encode())
    environment = made("Silent", dataset=path, reward_functions=("contains_answer",))
    assert environment.size == 2
    assert environment.reset(1) == [{"role": "user", "content": "a\u2028b\x85c"}]


def test_rows_that_change_are_another_version(tmp_path: Path) -> None:
    path = rows(tmp_path, {"prompt": "a", "answer": "1"})
    before = made("Silent", dataset=path, reward_functions=("contains_answer",)).version
    rows(tmp_path, {"prompt": "b", "answer": "1"})
    after = made("Silent", dataset=path, reward_functions=("contains_answer",)).version
    assert before != after


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoReset", "NoReset has no method reset"),
        ("Silent", "Silent has no get_reward: give reward_functions"),
    ],
)
def test_an_object_that_trl_would_not_take_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        made(name)


def test_an_object_whose_problems_could_not_be_repeated_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"Unseeded\.reset takes no seed"):
        made("Unseeded", reward_functions=("looked_up",))


def test_a_tool_without_types_is_refused() -> None:
    with pytest.raises(Exception, match="look"):
        made("Untyped")


def test_an_episode_that_nothing_scores_is_an_error() -> None:
    environment = made("Nothing")
    environment.reset(0)
    with pytest.raises(ValueError, match="nothing scores this episode"):
        said(environment, "4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ('{"prompt": "a"}\n[1]\n', "line 2 is not a table"),
        ('{"prompt": \n', "line 1: "),
    ],
)
def test_rows_that_cannot_be_read_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        made("Silent", dataset=path, reward_functions=("contains_answer",))
    with pytest.raises(InvalidInput, match="cannot be read"):
        made("Silent", dataset=tmp_path / "none", reward_functions=("contains_answer",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": f"{GUESSING}:Gessing"}, "did you mean"),
        ({"factory": "guessing"}, 'write "module:name"'),
        ({"factory": "no_such_module:X"}, "there is no module 'no_such_module'"),
        ({"factory": f"{GUESSING}:NOT_CALLABLE"}, "is a dict, not a function; write the name of"),
        ({"factory": f"{GUESSING}:Guessing", "tool_format": "xml"}, "'qwen3'"),
    ],
)
def test_a_mistake_in_the_options_is_reported(options: dict[str, Any], message: str) -> None:
    table = {"model": "m", "environment": {"use": "trl", **options}}
    with (
        Kitchen(settings=in_code({"workflow": table})) as kitchen,
        pytest.raises(ConfigurationError) as caught,
    ):
        kitchen.configure(ProblemsConfig, table, ("workflow",))
    assert "workflow.environment." in str(caught.value)
    assert message in str(caught.value)


def test_the_libraries_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, crucible_environment_trl.environment\n"
        "assert not {'trl', 'transformers', 'torch'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- TRL itself ---


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_asks_answers_and_rewards_the_same(tmp_path: Path) -> None:
    """TRL's trainer, whose sampling is replaced by completions that are given, makes the same
    prompts, tools, messages and rewards of the same objects.
    """
    system = {"role": "system", "content": "Be brief."}
    problems: list[dict[str, Any]] = [
        {"prompt": [system, {"role": "user", "content": "Well. "}], "seed": 3, "highest": 20},
        {"prompt": [{"role": "user", "content": ""}], "seed": 4, "highest": 9},
    ]
    scripts = [
        [
            "Let me see. " + calling("is_larger", than=9) + "\n" + calling("say", number=8),
            calling("jump") + calling("fail") + calling("is_larger", than=4),
            "<think>\nwhy\n</think>\n\nIt is 8.",
        ],
        [calling("say", number=3, reason="é"), '<tool_call>\n{"name": \n</tool_call>'],
    ]
    environment = made(dataset=rows(tmp_path, *problems))
    ours = []
    for seed, texts in enumerate(scripts):
        asked = environment.reset(seed)
        steps = [said(environment, text) for text in texts]
        assert [step.done for step in steps] == [*[False] * (len(texts) - 1), True]
        ours.append((asked, environment._said, steps[-1].reward))
    assert _of_trl(tmp_path, problems, scripts) == (environment.tools, ours)


def _of_trl(
    folder: Path, problems: Sequence[dict[str, Any]], scripts: Sequence[Sequence[str]]
) -> tuple[Any, list[tuple[Any, Any, Any]]]:
    """Return the tools, and for each problem the prompt, the messages and the reward."""
    from crucible_environment_trl.options import load
    from datasets import Dataset
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
    from transformers.utils import get_json_schema
    from trl import GRPOConfig, GRPOTrainer
    from trl.chat_template_utils import qwen3_chat_template

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_tokens(["<|im_start|>", "<tool_call>", "</tool_call>", "<think>", "</think>"])
    tokenizer.chat_template = qwen3_chat_template
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=8192,
    )
    heard: list[tuple[Any, Any]] = []

    def listen(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
        heard.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    trainer = GRPOTrainer(
        model=Qwen3ForCausalLM(config),
        reward_funcs=listen,
        args=GRPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=2,
            num_generations=2,
            max_completion_length=4096,
            report_to=[],
            use_cpu=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": each["prompt"]} for each in problems]),
        processing_class=tokenizer,
        environment_factory=load(f"{GUESSING}:Guessing"),
    )
    turns = [iter(script) for script in scripts]
    playing = list(range(len(scripts)))

    def sample(prompt_ids: Any, *args: Any, **kwargs: Any) -> tuple[list[list[int]], None]:
        nonlocal playing
        if len(prompt_ids) < len(playing):  # those whose last completion called no tool are over
            playing = [i for i in playing if i != 1]
        texts = [next(turns[i]) for i in playing]
        return [tokenizer(f"{text}<|im_end|>")["input_ids"] for text in texts], None

    trainer._generate_single_turn = sample
    scored: list[Any] = []
    calculate = trainer._calculate_rewards

    def score(*args: Any) -> Any:
        scored.append(calculate(*args))
        return scored[-1]

    trainer._calculate_rewards = score
    trainer._generate_and_score_completions([dict(each) for each in problems])
    rewards = scored[0].sum(dim=1).tolist()
    tools = [get_json_schema(method) for method in trainer._env_tools[None]]
    found = [
        (prompt, completion, pytest.approx(reward, abs=1e-6))
        for (prompt, completion), reward in zip(heard, rewards, strict=True)
    ]
    return tools, found
