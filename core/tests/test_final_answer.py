"""The number that an answer ends with, and whether it is the right one."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from crucible_kitchen import Completion, InvalidInput
from crucible_kitchen.environments.final_answer import final_answer, number_in
from hypothesis import given
from hypothesis import strategies as st

GSM8K = Path(__file__).resolve().parents[3] / "shared/data/gsm8k"


def said(text: str) -> Completion:
    return Completion(text, None, None, "stop")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So she has 18 eggs.\n#### 18", 18),
        ("#### 18\nI checked it 2 times.", 18),
        (r"#### 18 and not \boxed{2}", 18),
        ("#### 2,125", 2125),
        ("#### $1,234,567.50", Fraction("1234567.5")),
        ("####-3", -3),
        ("#### 3\nNo, wait.\n#### 4 dollars", 4),
        ("#### Step 2\nThe answer is 7.", 7),
        ("9 is wrong\n#### ", 9),
        (r"It is \boxed{42}, not 43", 42),
        (r"\boxed{\text{about } \$1{,}000}", 1000),
        (r"\boxed{\frac{3}{4}}", Fraction(3, 4)),
        (r"\boxed{\dfrac{ -3 }{ 4 }} and 5", Fraction(-3, 4)),
        (r"\boxed{7", 7),
        (r"\boxed{a_{1}} is \boxed{8}", 8),
        ("The answer is 3.50.", Fraction("3.5")),
        ("**12**", 12),
        ("1, 2,3", 3),
        ("it costs $.50", Fraction(1, 2)),
        ("-$5", -5),
        ("$-5.25", Fraction("-5.25")),
        ("\u22125", -5),
        ("10-5", 5),
        ("from 10 - 4", 4),
        ("50%", 50),
        (r"50\%", 50),
        ("1/2", Fraction(1, 2)),
        ("a pizza and 1 1/2 more", Fraction(3, 2)),
        ("2e3", 2000),
        ("1\u202f000", 1000),
        ("<think>maybe 9</think>It is 8", 8),
        ("<think>maybe 9", None),
        ("I do not know.", None),
        ("12/0", None),
        ("9" * 5000, None),
        ("1e999999999", 999999999),
        ("", None),
    ],
)
def test_the_number_that_an_answer_ends_with(text: str, number: Fraction | int | None) -> None:
    assert number_in(text) == number


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", "{}", "${:,}", "{}.00", "{} eggs"]))
def test_a_number_is_found_however_it_is_written(number: int, form: str) -> None:
    for text in (
        f"17 and 4\n#### {form.format(number)}",
        f"17 and \\boxed{{{form.format(number)}}} for 4",
        f"17 times 4: {form.format(number)}.",
    ):
        assert number_in(text) == number


@given(st.decimals(-1000, 1000, places=3))
def test_decimals_are_exact(number: object) -> None:
    assert number_in(f"it is {number}") == Fraction(str(number))


@given(st.text())
def test_any_text_is_read_or_has_no_number(text: str) -> None:
    assert isinstance(number_in(text), Fraction | None)


@pytest.mark.parametrize(
    ("answer", "text", "reward", "parsed"),
    [
        ("so it is 72\n#### 72", "#### 72.0", 1, True),
        ("#### 72", "I get 71", 0, True),
        ("#### 72", "no idea", 0, False),
        (0.5, "1/2", 1, True),
        (3, "3", 1, True),
    ],
)
def test_the_reward_is_one_for_the_right_number(
    answer: object, text: str, reward: float, parsed: bool
) -> None:
    step = final_answer(said(text), {"answer": answer})
    assert (step.reward, step.parsed, step.done) == (reward, parsed, True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?"}, r"no field 'answer' .*it has 'question'"),
        ({"answer": None}, "no field 'answer'"),
        ({"answer": "none"}, "no number in its 'answer': 'none'"),
        ({"answer": True}, "no number in its 'answer'"),
    ],
)
def test_a_row_without_a_right_answer_is_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        final_answer(said("1"), row)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not there")
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_answer_of_gsm8k_has_its_number(split: str) -> None:
    for line in (GSM8K / f"{split}.jsonl").read_text("utf-8").splitlines():
        answer = json.loads(line)["answer"]
        number = answer.rpartition("#### ")[2].replace(",", "")
        assert number_in(answer) == Fraction(number), answer[-40:]


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not there")
def test_solutions_of_models_are_judged_as_gsm8k_does() -> None:
    """5,276 solutions of four models, with OpenAI's own verdicts."""
    judged = 0
    for line in (GSM8K / "model_solutions.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            step = final_answer(said(row[name]["solution"]), row, "ground_truth")
            assert bool(step.reward) == row[name]["is_correct"], row[name]
            judged += 1
    assert judged == 5276
