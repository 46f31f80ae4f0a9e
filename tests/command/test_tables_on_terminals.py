"""Tables fit the width of a terminal, and their words stay whole."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from crucible_kitchen.cli.grid import fitted
from rich.console import Console

RUN = "supervised-20261130-034411-6dcc3b"
ADAPTERS = (
    ("port", "name", "package", "version", "conformance"),
    [
        ("training_client", "torch", "crucible-adapter-torch", "0.1.0", "not checked"),
        ("dataset_store", "hf-datasets", "crucible-adapter-hf-datasets", "0.1.0", "not checked"),
    ],
)
RUNS = (
    ("run", "workflow", "status", "step", "metrics", "started", "took"),
    [(RUN, "supervised", "done", "1,200", "test/exact_match 0.75", "2026-11-30 03:44", "5.00 s")],
)


def shown(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int = 80) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(fitted(headings, rows, width))
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return [line.rstrip() for line in lines if line.strip()]


def test_the_adapters_are_one_line_each_on_80_columns() -> None:
    assert shown(*ADAPTERS)[2:] == [
        "training_client  torch        crucible-adapter-torch        0.1.0    not checked",
        "dataset_store    hf-datasets  crucible-adapter-hf-datasets  0.1.0    not checked",
    ]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_row_whose_words_do_not_fit_side_by_side_has_lines_of_its_own(width: int) -> None:
    words = " ".join(shown(*RUNS, width=width)).split()
    headings, [row] = RUNS
    pairs = [f"{heading} {cell}" for heading, cell in zip(headings[1:], row[1:], strict=True)]
    assert words == " ".join([RUN, *pairs]).split()


def test_the_lines_of_a_row_are_few() -> None:
    assert shown(*RUNS) == [
        RUN,
        "  workflow supervised  status done  step 1,200  metrics test/exact_match 0.75",
        "  started 2026-11-30 03:44  took 5.00 s",
    ]


def test_a_row_that_fits_is_one_line() -> None:
    *_, line = shown(*RUNS, width=120)
    assert line.split() == " ".join(RUNS[1][0]).split()


def test_a_wide_column_leaves_the_others_their_words() -> None:
    rows = [("torch", "crucible-adapter-torch", "a b c " * 40), ("noop", "noop", "d")]
    _, _, first, *_ = shown(("name", "package", "what it does"), rows)
    assert first.startswith("torch  crucible-adapter-torch  a b c")


def test_a_path_that_is_longer_than_its_column_is_folded() -> None:
    path = "/data/" + "x" * 100
    lines = shown(("setting", "value"), [("workflow.dataset", path)])[2:]
    assert len(lines) == 2
    assert "".join(line.removeprefix("workflow.dataset").strip() for line in lines) == path


def test_lines_of_a_cell_stay_lines() -> None:
    lines = shown(("what", "detail"), [("workflow", "one\ntwo")])
    assert [line.split() for line in lines[2:]] == [["workflow", "one"], ["two"]]


def test_a_table_without_rows_is_its_headings() -> None:
    assert shown(("what", "detail"), [])[0].split() == ["what", "detail"]


def test_lines_end_with_the_table_and_not_with_the_width() -> None:
    out = Console(file=io.StringIO(), width=10_000)  # that of a pipe with colours
    out.print(fitted(*RUNS, 10_000))
    assert isinstance(out.file, io.StringIO)
    assert max(map(len, out.file.getvalue().splitlines())) < 200
