"""The addition data set in docs/examples/arithmetic, which tests and benchmarks train on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCRIPT = EXAMPLES / "make_arithmetic.py"


def rows(split: str) -> list[tuple[int, int, str]]:
    """Return the operands and the completion of each row."""
    found = []
    for line in (EXAMPLES / "arithmetic" / f"{split}.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row.keys() == {"prompt", "completion"}
        match = re.fullmatch(r"(\d\d)\+(\d\d)=", row["prompt"])
        assert match, row
        found.append((int(match[1]), int(match[2]), row["completion"]))
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize(("split", "count"), [("train", 7113), ("test", 500)])
def test_a_split_has_its_number_of_rows_all_different(split: str, count: int) -> None:
    assert len(rows(split)) == count
    assert len(set(rows(split))) == count


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_completion_is_the_sum_of_two_operands_from_10_to_99(split: str) -> None:
    for a, b, completion in rows(split):
        assert completion == str(a + b)
        assert 10 <= a <= 99
        assert 10 <= b <= 99


def test_no_pair_of_operands_is_in_both_splits_in_any_order() -> None:
    train = {frozenset((a, b)) for a, b, _ in rows("train")}
    test = {frozenset((a, b)) for a, b, _ in rows("test")}
    assert not train & test
    assert len(test) == 500
    assert len(train | test) == 4095


def test_training_has_both_orders_of_each_of_its_pairs() -> None:
    train = {(a, b) for a, b, _ in rows("train")}
    assert train == {(b, a) for a, b in train}


def test_the_script_makes_the_committed_files(tmp_path: Path) -> None:
    assert run(str(tmp_path)).returncode == 0
    for split in ("train", "test"):
        committed = (EXAMPLES / "arithmetic" / f"{split}.jsonl").read_bytes()
        assert (tmp_path / f"{split}.jsonl").read_bytes() == committed


def test_check_accepts_what_the_script_made_and_rejects_a_changed_byte(tmp_path: Path) -> None:
    run(str(tmp_path))
    assert run("--check", str(tmp_path)).returncode == 0
    test = tmp_path / "test.jsonl"
    test.write_bytes(test.read_bytes().replace(b"1", b"2", 1))
    changed = test.read_bytes()
    result = run("--check", str(tmp_path))
    assert result.returncode == 1
    assert "test.jsonl" in result.stdout
    assert test.read_bytes() == changed
