"""Weights for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ...errors import AdapterError, InvalidInput, SessionClosed
from ..conformance import needs, since
from ..refusal import refuses
from .bench import Bench
from .fixtures import Score, TrainingClientFixtures


class Exporting(TrainingClientFixtures):
    """`export_weights`."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """An empty folder. Not to be overridden."""
        (made := tmp_path / "exported").mkdir()
        return made

    @since("1.3")
    @needs("export_weights")
    def test_exported_weights_are_those_of_the_session(
        self, bench: Bench, score: Score | None, folder: Path
    ) -> None:
        """A folder with whole weights holds them as they are after everything queued: a session of
        this client started from it, if it can be, and the paired completer give the log
        probabilities of the session.

        Usually broken by exporting around the queue, or by an update that is not merged.
        """
        session = bench.start()
        for seed in (1, 2):
            bench.client.forward_backward(session, bench.batch(seed))
            bench.client.optim_step(session, bench.learning_rate)
        bench.client.export_weights(session, folder, merge=True)
        assert any(folder.iterdir()), "nothing was written"
        expected = bench.logprobs(session, bench.probe)
        found = []
        if score is not None:
            texts = [
                [*each.model_input.to_ints(), int(each.loss_fn_inputs["target_tokens"][-1])]
                for each in bench.probe
            ]
            found.append(np.concatenate(score(texts, str(folder))))
        try:
            again = bench.start(model=str(folder), lora=None)
        except AdapterError as error:
            if not found:
                pytest.skip(f"cannot be compared: the client does not start from it ({error})")
        else:
            found.append(bench.logprobs(again, bench.probe))
        for each in found:
            np.testing.assert_allclose(each, expected, atol=10 * bench.tolerance)

    @since("1.3")
    @needs("export_weights")
    def test_exporting_changes_nothing(self, bench: Bench, folder: Path) -> None:
        """After an export, and a second one to the same folder, training goes on as without:
        pending gradients stay pending.

        Usually broken by merging an update into the weights that are trained.
        """
        session, other = bench.start(), bench.start()
        for each in (session, other):
            bench.step(each, bench.batch(1))
            bench.client.forward_backward(each, bench.batch(2))
        for _ in range(2):
            bench.client.export_weights(session, folder)
        for each in (session, other):
            bench.optim_step(each)
        bench.same(bench.logprobs(session, bench.probe), bench.logprobs(other, bench.probe))

    @since("1.3")
    @needs("export_weights")
    def test_an_update_alone_needs_an_update(self, bench: Bench, folder: Path) -> None:
        """Without `merge`, exporting a session that trains every weight is `InvalidInput`, and
        writes nothing.

        Usually broken by writing the whole model instead.
        """
        session = bench.start(lora=None)
        refuses(InvalidInput, bench.client.export_weights, session, folder, merge=False)
        assert not any(folder.iterdir())

    @since("1.3")
    @needs("export_weights")
    def test_a_closed_session_exports_nothing(self, bench: Bench, folder: Path) -> None:
        """`export_weights` of a closed session is `SessionClosed`.

        Usually broken by an error of what was freed.
        """
        session = bench.start()
        bench.client.close_session(session)
        refuses(SessionClosed, bench.client.export_weights, session, folder)
        assert not any(folder.iterdir())
