"""What is known before training."""

from __future__ import annotations

import json

import pytest

from ...errors import SessionClosed
from ...ports import TrainingClient
from ..conformance import Reopen, needs, since
from ..refusal import refuses
from .bench import Bench
from .fixtures import TrainingClientFixtures


class Preflight(TrainingClientFixtures):
    """`get_info` and `check_storage`."""

    @since("1.2")
    @needs("get_info")
    def test_what_results_depend_on_is_plain_and_does_not_change(
        self, bench: Bench, reopen: Reopen[TrainingClient] | None
    ) -> None:
        """`get_info` returns texts, numbers, truth values and None by name, the same for each
        session of the same options, trained or not, in any process.

        Usually broken by a NumPy scalar, the name of a session, or a step count: a run may not
        continue if one of them differs.
        """
        session = bench.start()
        info = bench.client.get_info(session)
        assert info, "it is empty: leave the callback out"
        assert all(isinstance(name, str) for name in info)
        assert all(v is None or type(v) in (str, int, float, bool) for v in info.values())
        json.dumps(dict(info), allow_nan=False)
        bench.step(session, bench.batch(1))
        assert dict(bench.client.get_info(session)) == dict(info)
        assert dict(bench.client.get_info(bench.start())) == dict(info)
        if reopen is not None:
            with reopen() as client:
                other = client.start_session(bench.config)
                assert dict(client.get_info(other)) == dict(info)
                client.close_session(other)

    @since("1.2")
    @needs("check_storage")
    def test_trying_the_storage_leaves_nothing(self, bench: Bench) -> None:
        """`check_storage` returns if a checkpoint can be saved, and changes nothing: no checkpoint
        is added, and pending gradients stay pending.

        Usually broken by saving a checkpoint to see whether it works.
        """
        session, other = bench.start(), bench.start()
        bench.save(session)
        listed = bench.client.supports("list_checkpoints")
        before = bench.client.list_checkpoints() if listed else ()
        bench.client.check_storage(session, 2)
        bench.client.forward_backward(session, bench.batch(1))
        for checkpoints in (0, 1, 3):
            bench.client.check_storage(session, checkpoints)
        bench.optim_step(session)
        bench.step(other, bench.batch(1))
        bench.same(bench.logprobs(session, bench.probe), bench.logprobs(other, bench.probe))
        if listed and bench.client.supports("forward"):  # else `logprobs` saves some
            assert list(bench.client.list_checkpoints()) == list(before)

    @since("1.2")
    @pytest.mark.parametrize("callback", ["get_info", "check_storage"])
    def test_a_closed_session_tells_nothing(self, bench: Bench, callback: str) -> None:
        """`get_info` and `check_storage` of a closed session are `SessionClosed`.

        Usually broken by an error of what was freed.
        """
        if not bench.client.supports(callback):
            pytest.skip(f"does not implement {callback}, which is optional")
        session = bench.start()
        bench.client.close_session(session)
        refuses(SessionClosed, getattr(bench.client, callback), session)
