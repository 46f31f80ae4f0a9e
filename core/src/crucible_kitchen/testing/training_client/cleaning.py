"""Cleaning up after runs."""

from __future__ import annotations

import pytest

from ...errors import NotFound
from ..conformance import needs, since
from ..refusal import refuses
from .bench import Bench
from .fixtures import TrainingClientFixtures


class Cleaning(TrainingClientFixtures):
    """`clean`."""

    @since("1.2")
    @needs("clean")
    @pytest.mark.parametrize("run", ["run", "long" * 100, "ü/[*]?", "%2F"])
    def test_cleaning_removes_what_its_prefix_names_and_is_not_kept(
        self, bench: Bench, run: str
    ) -> None:
        """`clean(prefix, keep)` removes the checkpoints, and the weights that were saved with a
        name, that begin with the prefix and are not in `keep`, and names them by their references;
        again it finds nothing. A dry run names the same, and removes nothing.

        Usually broken by comparing names of files, which are cut and encoded, so that another
        run's checkpoints are removed as well.
        """
        session = bench.start()
        names = [f"{run}/1/a", f"{run}/1/b", f"{run}/1/b", f"{run}/10/a", f"{run}/2/a", f"{run}/1"]
        saved = [bench.save(session, name) for name in names]
        if bench.client.supports("save_weights_for_sampler"):
            export = bench.client.save_weights_for_sampler
            saved += [export(session, f"{bench.label}{name}") for name in names]
        keep, doomed, others = saved[::6], sorted(saved[1::6] + saved[2::6]), saved[3:6]
        prefix = f"{bench.label}{run}/1/"
        assert sorted(bench.client.clean(prefix, keep, dry_run=True)) == doomed
        for reference in saved[:6]:
            bench.client.load_checkpoint(session, reference)
        assert sorted(bench.client.clean(prefix, keep)) == doomed
        for reference in saved[1:3]:
            refuses(NotFound, bench.client.load_checkpoint, session, reference)
        for reference in (saved[0], *others):
            bench.client.load_checkpoint(session, reference)
        assert bench.client.clean(prefix, keep) == []
        assert sorted(bench.client.clean(bench.label)) == sorted({*saved} - {*doomed})

    @since("1.2")
    @needs("clean")
    def test_cleaning_without_a_prefix_leaves_what_is_complete(self, bench: Bench) -> None:
        """`clean()` removes no checkpoint and no saved weights, whatever their labels.

        Usually broken by an empty prefix, with which everything begins.
        """
        session = bench.start()
        saved = [bench.save(session), bench.client.save_checkpoint(session, "")]
        bench.references.append(saved[1])
        bench.client.clean()
        for reference in saved:
            bench.client.load_checkpoint(session, reference)
