"""A model of PyTorch learns from the scores of a data set: the example of the documentation, cut
short.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import reasoning_gym_curve as example


@pytest.mark.slow
def test_the_example_of_the_documentation_learns_and_goes_on_where_it_was(tmp_path: Path) -> None:
    checkpoint = example.warm_up(tmp_path, steps=2)
    rewards = example.learn(tmp_path, checkpoint, steps=1, test_size=4)
    assert [step for step, _ in rewards] == [0, 1]
    assert all(0 <= reward <= 1 for _, reward in rewards)
    assert example.warm_up(tmp_path, steps=2) == checkpoint
    assert example.learn(tmp_path, checkpoint, steps=1, test_size=4) == rewards

    shown = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(shown) == len(example.SHOWN)
    bare = sum(not row["completion"].startswith("It is ") for row in shown)
    assert bare / len(shown) == pytest.approx(example.BARE, abs=0.02)


def test_a_curve_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    example.draw([(0, 0.2), (10, 0.5)], tmp_path / "curve.svg")
    assert "mean held-out reward" in (tmp_path / "curve.svg").read_text()
