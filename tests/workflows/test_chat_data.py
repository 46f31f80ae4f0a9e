"""The conversations in docs/examples/chat, which docs/examples/chat.toml trains on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from make_chat import conversation

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
GSM8K = EXAMPLES.parents[2] / "shared" / "data" / "gsm8k"


def lines(split: str) -> list[str]:
    return (EXAMPLES / "chat" / f"{split}.jsonl").read_text("utf-8").splitlines()


def turns(line: str) -> list[tuple[str, str]]:
    """Return what is asked in a row, and what is answered."""
    row = json.loads(line)
    assert row.keys() == {"messages"}
    asked, answered = row["messages"][::2], row["messages"][1::2]
    assert all(message["role"] == "user" for message in asked)
    assert all(message["role"] == "assistant" for message in answered)
    return [(one["content"], two["content"]) for one, two in zip(asked, answered, strict=True)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_conversation_goes_through_calculations_to_the_answer(split: str) -> None:
    for line in lines(split):
        *steps, (question, answer) = turns(line)
        assert 2 <= len(steps) <= 4
        assert (question, answer) == ("And the answer?", steps[-1][1])


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_calculation_is_right(split: str) -> None:
    for line in lines(split):
        for question, result in turns(line)[:-1]:
            match = re.fullmatch(r"(\d{1,2})([-+*/])(\d{1,2}) = \?", question)
            assert match, line
            a, sign, b = int(match[1]), match[2], int(match[3])
            right = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign]
            assert right == int(result), line


def test_every_conversation_comes_once() -> None:
    both = lines("train") + lines("test")
    assert len(both) == len(set(both)) == 1800


def test_the_marks_of_a_solution_become_turns() -> None:
    solution = "She sold 48/2 = <<48/2=24>>24.\nIn all 48+24 = <<48+24=72>>72.\n#### 72"
    assert conversation(solution) == [
        {"role": "user", "content": "48/2 = ?"},
        {"role": "assistant", "content": "24"},
        {"role": "user", "content": "48+24 = ?"},
        {"role": "assistant", "content": "72"},
        {"role": "user", "content": "And the answer?"},
        {"role": "assistant", "content": "72"},
    ]


@pytest.mark.parametrize(
    "solution",
    [
        "<<1+1=2>>2\n#### 2",
        "<<1+1=2>>2 <<2+1=3>>3\n#### 4",
        "<<1/2=0.5>>0.5 <<2*.5=1>>1\n#### 1",
        "<<1+1+1=3>>3 <<3+1=4>>4\n#### 4",
        "<<99+1=100>>100 <<100-1=99>>99\n#### 99",
    ],
    ids=["one step", "another answer", "not whole", "three numbers", "three digits"],
)
def test_no_other_solution_becomes_a_conversation(solution: str) -> None:
    assert conversation(solution) is None


@pytest.mark.skipif(not GSM8K.is_dir(), reason="the GSM8K data is not next to this repository")
def test_the_script_makes_the_committed_files(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "make_chat.py")]
    subprocess.run([*script, str(GSM8K), str(tmp_path)], check=True)
    for split in ("train", "test"):
        committed = (EXAMPLES / "chat" / f"{split}.jsonl").read_bytes()
        assert (tmp_path / f"{split}.jsonl").read_bytes() == committed
