"""Pages and pictures of runs: what they show, and that nothing in them is from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, browser
from crucible_kitchen import MetricEntry
from crucible_kitchen.history import page
from crucible_kitchen.history.curves import curves, last_values, worth_drawing
from crucible_kitchen.history.page import Evaluation, Told
from crucible_kitchen.history.stored import StoredRun
from crucible_kitchen.workflows.runs import RunRecord, RunState

pytest.importorskip("jinja2")

HOSTILE = (
    "</script></style></title></pre><img src=x onerror=alert(1)> \u202e\x1b[2J\x00\ud800 'a\" &amp;"
)
TIME = datetime(2026, 1, 2, tzinfo=UTC)


def entries(
    values: Sequence[float], metric: str = "train_mean_nll", steps: Sequence[int | None] = ()
) -> list[MetricEntry]:
    at = steps or range(1, len(values) + 1)
    return [MetricEntry("r", metric, v, s, TIME) for v, s in zip(values, at, strict=True)]


def told(
    rows: Sequence[MetricEntry],
    samples: Sequence[Mapping[str, Any]] = (),
    run_id: str = "r",
    **config: Any,
) -> Told:
    record = RunRecord(
        run_id=run_id,
        workflow="supervised",
        status="done",
        created="2026-01-02T03:04:05+00:00",
        ended="2026-01-02T04:04:05+00:00",
        config={"model": "any", **config},
        state=RunState(),
        checkpoints=[],
        metrics={},
    )
    evaluations = [Evaluation(20, samples, len(samples))] if samples else []
    return Told(StoredRun(run_id, "done", record), curves(rows), last_values(rows), evaluations)


def drawn(*runs: Told) -> str:
    return page.html(runs, worth_drawing(name for run in runs for name in run.curves))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_curves_are_there_without_an_error_or_a_request(
    chromium: Browser, tmp_path: Path, width: int
) -> None:
    loss = [math.exp(-n / 30) + math.sin(n) / 20 for n in range(100)]
    rows = entries(loss) + entries([1e4 + n % 7 for n in range(100)], "tokens_per_second")
    sample = {"prompt": HOSTILE, "completion": "4" * 3000, "reward": 0.25, "answer": None}
    file = tmp_path / "page.html"
    other = told(entries(loss[::-1]), run_id="long/name" * 20)
    file.write_text(drawn(told(rows, [sample] * 3, learning_rate=1e-4), other))
    shown = chromium.open(file, width)
    boxes = "[...document.querySelectorAll('polyline')].map(c => c.getBoundingClientRect())"
    assert shown.ask(f"{boxes}.map(b => b.width > 200 && b.height > 40)") == [True] * 3
    strokes = "[...document.querySelectorAll('polyline')].map(c => getComputedStyle(c).stroke)"
    assert len(set(shown.ask(strokes))) == 2  # a colour of its own for each run
    assert shown.ask("document.documentElement.scrollWidth") <= width
    assert (
        shown.ask("document.querySelectorAll('script, img, link[href^=http], iframe').length") == 0
    )
    assert "reward" in shown.ask("document.body.innerText")
    assert shown.complaints == []
    assert [each for each in shown.requests if not each.startswith("data:")] == [file.as_uri()]


@pytest.mark.slow
def test_in_the_dark_the_page_is_dark(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(drawn(told(entries([1.0, 0.5]))))
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (chromium.open(file, 390, dark=dark).ask(colour) for dark in (False, True))
    assert light != dark


def test_hostile_text_is_shown_and_does_nothing() -> None:
    rows = entries([1.0], HOSTILE)
    text = drawn(told(rows, [{HOSTILE: HOSTILE, "prompt": [HOSTILE]}], HOSTILE, setting=HOSTILE))
    assert "<img" not in text
    assert "<script" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800]", text)
    assert r"\u202e\x1b[2J\x00\ud800" in text


def test_a_page_loads_nothing() -> None:
    text = drawn(told(entries([1.0, 2.0])))
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import|<script|src=", text)


def test_settings_metrics_samples_and_status_are_on_the_page() -> None:
    samples = [{"prompt": "2+2=", "completion": "5", "reward": -1.0}]
    text = drawn(told(entries([1.0, 0.125]), samples, learning_rate=0.003))
    for part in ("workflow.learning_rate", "0.003", "0.125", "2+2=", "-1.0", "done", "step 20"):
        assert part in text


def test_what_differs_between_runs_is_on_the_page() -> None:
    text = drawn(told(entries([1.0]), seed=1), told(entries([2.0]), run_id="s", seed=2))
    assert "What differs" in text
    assert text.count("<polyline") == 2


@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [3.0, 3.0, 3.0],
        [math.nan, math.inf, -math.inf],
        [1.0, math.nan, 2.0],
        [1e308, -1e308, 5e-324],
        [1e16, 1e16 + 2],
        [0.0, -0.0],
        [-1e299, 1e299],
    ],
)
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    text = drawn(told(entries(values)))
    points = [p for found in re.findall(r'points="([^"]*)"', text) for p in found.split()]
    assert len(points) == sum(abs(value) <= 1e300 for value in values)
    for point in points:
        x, y = map(float, point.split(","))
        assert 0 <= x <= 420
        assert 0 <= y <= 220


def test_values_that_are_not_drawn_are_counted() -> None:
    assert "NaN and infinite values are not drawn: train_mean_nll 2" in drawn(
        told(entries([1.0, math.nan, math.inf]))
    )


def test_a_hundred_thousand_steps_make_a_small_page_that_says_what_is_drawn() -> None:
    values = [math.sin(n / 1000) for n in range(100_000)]
    values[77_777] = 50.0
    text = drawn(told(entries(values)))
    assert len(text) < 100_000
    assert "curves of up to 100,000 points" in text
    [points] = re.findall(r'points="([^"]*)"', text)
    down = {float(y): float(x) for x, y in (point.split(",") for point in points.split())}
    assert down[min(down)] == pytest.approx(58 + 344 * 0.77777, abs=0.1)  # the one high value


def test_a_run_without_metrics_or_record_has_a_page() -> None:
    text = page.html([Told(StoredRun("r", "damaged", None, "its record is damaged"), {}, {})], [])
    assert "its record is damaged" in text
    assert "No metrics with steps are recorded" in text
