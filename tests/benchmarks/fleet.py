"""A fleet of 1,000 nodes: the core's own loop, restarts and wrappers on noops, in virtual time.

What is simulated is printed beside what a formula says, or what a service admits. The numbers of
the fleet are assumptions, with their sources; docs/scale/thousand-nodes.md is what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from .comparison import Growth, Row
from .settings import Settings
from .simulation import formulas
from .simulation.goodput import Cluster, Outcome, train
from .simulation.load import PORTS, Load, load
from .simulation.sampling import Fleet, sample
from .simulation.starting import Started, start

NODES = (125, 250, 500, 1000)

MTBF_OF_A_NODE = 54 * 86_400 * 2048 / 419
"""Seconds. 419 unexpected interruptions in 54 days on 16,384 GPUs, 8 a node: "The Llama 3 Herd of
Models", arXiv 2407.21783, section 3.3.4."""
STEP, RESTART = 120.0, 600.0
"""Seconds of an optimizer step, and from a failure to the next step. Assumed; a save takes 150 s,
1.25 steps as a noop's does: 840 GB, for 70 billion parameters, at 5.6 GB/s."""
SAVE_EVERY = (5, 10, 20, 40, 80)
"""Steps between checkpoints; Young's best is 22 for 1,000 nodes."""

FILES = 38
"""Requests for a model of 70 billion parameters: 30 shards, and the small files. Assumed."""
QUOTAS = {"free user": 5_000, "team": 20_000, "enterprise": 50_000}
"""Files that the Hugging Face hub serves in five minutes, by plan, in September 2026:
https://huggingface.co/docs/hub/rate-limits."""

DRIVER = 736.0
"""Requests a second that one process sent with `completer.openai`: measured by `completions`."""
SAMPLERS = Fleet(slots=4, seconds=1.6, failure_rate=0.001)
"""2.5 requests a second and node, as of 64 answers at a time that take 25.6 s. Assumed."""
LONG_TAILED = replace(SAMPLERS, spread=1.0)
"""Lengths of answers that differ: the longest has 8 times the mean, where they are cut."""

CAPACITY: Mapping[str, tuple[float, str]] = {
    "blob_store": (3_500, "writes a second to one prefix of S3, as documented"),
    "metrics_store": (100_000, "values a second into PostgreSQL, measured by `metrics`"),
}
"""Requests a second, and where the number is from."""


def rows(settings: Settings) -> Iterator[Row]:
    """Yield what 1,000 nodes do; a tenth of them where little work is wanted."""
    nodes = 100 if settings.small else 1000
    every = 20
    for behind, against in ((False, "Daly's formula"), (True, "its first order")):
        outcome = _trained(nodes, every, behind, settings.small)
        yield Row(
            f"goodput, {nodes:,} nodes, a checkpoint every {every} steps"
            f"{', saved behind the steps' if behind else ''}",
            against,
            None,
            outcome.goodput / _expected(outcome, every, behind),
            outcome.goodput,
            _expected(outcome, every, behind),
            "s of work/s",
            f"{outcome.failures} failures in {outcome.seconds / 86_400:.1f} days",
        )
    for plan, quota in QUOTAS.items():
        found = _started(nodes, quota)
        windows = 300.0 * ((nodes * FILES - 1) // quota)
        assert not found.failed, f"{found.failed} nodes gave up"
        yield Row(
            f"{nodes:,} nodes fetch {FILES} files each, quota of a {plan}",
            "whole windows of five minutes",
            None,
            found.seconds / max(windows, found.seconds),
            found.seconds,
            windows,
            "s",
        )
    fast = sample(SAMPLERS, nodes, 4, rate=DRIVER)
    asked = nodes * SAMPLERS.slots / SAMPLERS.seconds
    yield Row(
        f"answers of {nodes:,} nodes through one driver",
        "what the nodes can sample",
        None,
        fast.per_second / asked,
        fast.per_second,
        asked,
        "answers/s",
    )
    for per_slot in (4, 16):
        step = sample(LONG_TAILED, nodes // 10, per_slot)
        yield Row(
            f"sampling time used, {per_slot} answers a slot, all awaited",
            "answers of one length",
            None,
            step.busy,
            step.busy,
            1.0,
            "s/s",
            "the slots wait for the longest answer of the step",
        )
    reached = _reached(nodes)
    for port, (capacity, source) in CAPACITY.items():
        most = max(reached.per_second(port), reached.busiest[port])
        yield Row(
            f"calls of {nodes:,} runs that start within one step, busiest second: {port}",
            source,
            None,
            most / capacity,
            most,
            capacity,
            "/s",
            f"{reached.per_second(port):.3g}/s on average",
        )


def growth(settings: Settings) -> Iterator[Growth]:
    """Yield goodput over the interval and the nodes, and what reaches the services."""
    small = settings.small
    curves: dict[str, list[float]] = {}
    for every in SAVE_EVERY:
        for behind, name in ((False, "waits"), (True, "saved behind")):
            outcome = _trained(1000, every, behind, small)
            curves.setdefault(f"{name}, simulated", []).append(outcome.goodput)
            expected = _expected(outcome, every, behind)
            curves.setdefault(f"{name}, formula", []).append(expected)
    what, variable = "goodput of 1,000 nodes", "steps between checkpoints"
    note = "some 16 failures a point, so that luck is 3 percent at 80 steps, and less at fewer"
    yield Growth(what, variable, "s of work/s", SAVE_EVERY, curves, note)

    curves = {}
    for nodes in NODES:
        mtbf = formulas.mtbf_of(nodes, MTBF_OF_A_NODE)
        every = max(round(formulas.young(_cluster(nodes).saving, mtbf) / STEP), 1)
        outcome = _trained(nodes, every, False, small)
        curves.setdefault("simulated", []).append(outcome.goodput)
        curves.setdefault("Daly's formula", []).append(_expected(outcome, every, False))
    yield Growth("goodput at Young's interval", "nodes", "s of work/s", NODES, curves)

    sizes = tuple(nodes // 10 for nodes in NODES) if small else NODES
    yield Growth(
        "a model of 38 files, until every node has it",
        "nodes",
        "s",
        sizes,
        {
            f"{quota:,} requests in 5 min": [_started(n, quota).seconds for n in sizes]
            for quota in (QUOTAS["free user"], QUOTAS["team"])
        },
    )
    yield Growth(
        "answers through one driver",
        "nodes",
        "answers/s",
        sizes,
        {
            "one driver": [sample(SAMPLERS, n, 4, rate=DRIVER).per_second for n in sizes],
            "what the nodes can": [n * SAMPLERS.slots / SAMPLERS.seconds for n in sizes],
        },
    )
    found = [_reached(runs) for runs in sizes]
    yield Growth(
        "calls of runs of one node each",
        "runs",
        "calls/s",
        sizes,
        {port: [each.per_second(port) for each in found] for port in PORTS},
    )


def _cluster(nodes: int) -> Cluster:
    return Cluster(STEP, RESTART, formulas.mtbf_of(nodes, MTBF_OF_A_NODE))


@cache
def _reached(runs: int) -> Load:
    """Return what reaches the ports from short runs: three steps of 12 s, and a checkpoint."""
    return load(runs, steps=3, step=12.0, save_every=3)


@cache
def _started(nodes: int, quota: int) -> Started:
    return start(nodes, FILES, quota)


@cache
def _trained(nodes: int, every: int, behind: bool, small: bool) -> Outcome:
    """Train long enough for some 15 failures of 1,000 nodes."""
    steps = 200 if small else 2500
    return train(_cluster(nodes), steps, every, seed=nodes, behind=behind)


def _expected(outcome: Outcome, every: int, behind: bool) -> float:
    """Return what the formula says, for as many failures as there were.

    The number of failures is luck: with the mean of the process instead, a run with few would
    differ from the formula by what says nothing about either.
    """
    cluster = _cluster(1)
    formula = formulas.goodput_behind if behind else formulas.goodput
    return formula(every * STEP, cluster.saving, RESTART, outcome.mtbf)
