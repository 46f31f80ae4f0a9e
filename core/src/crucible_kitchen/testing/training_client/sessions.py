"""Sessions: seeds, closing, and what they cannot honour."""

from __future__ import annotations

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...errors import InvalidInput, NotFound, SessionClosed, Unsupported
from ...types import LoraConfig
from ..conformance import unless_synthetic
from ..refusal import refuses
from .bench import Bench, datum, joined
from .fixtures import TrainingClientFixtures


class Sessions(TrainingClientFixtures):
    """`start_session` and `close_session`."""

    def test_a_seed_makes_one_session(self, bench: Bench) -> None:
        """Two sessions of one seed begin with the same weights and train alike.

        Usually broken by weights, or an update, drawn from a generator of the process.
        """
        for seed in (5, 6):
            first, second = (bench.start(seed=seed) for _ in range(2))
            bench.same(bench.logprobs(second, bench.probe), bench.logprobs(first, bench.probe))
            bench.same(bench.losses(second, [1, 2]), bench.losses(first, [1, 2]))

    def test_two_sessions_do_not_disturb_each_other(self, bench: Bench) -> None:
        """Sessions that train at once, each on its own thread, train as each would alone.

        Usually broken by a model, a gradient or an optimizer that belongs to the process.
        """
        seeds = ([1, 2, 1, 2, 1], [2, 2, 1, 1, 2])
        alone = [bench.losses(bench.start(), each) for each in seeds]
        sessions = [bench.start() for _ in seeds]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(bench.losses, sessions, seeds))
        bench.same(together, alone)
        bench.client.close_session(sessions[0])
        assert math.isfinite(bench.step(sessions[1], bench.batch(1)).loss)

    def test_a_closed_session_is_refused_by_every_callback(self, bench: Bench) -> None:
        """After `close_session`, which may be repeated, any use is `SessionClosed`.

        Usually broken by a check in some callbacks only, or by an error of what was freed.
        """
        session = bench.start()
        reference = bench.save(session)
        bench.client.close_session(session)
        bench.client.close_session(session)
        for use in bench.uses(session, reference).values():
            refuses(SessionClosed, use)
        bench.client.close_session(session)

    def test_closing_ends_what_is_queued(self, bench: Bench) -> None:
        """Awaiting an operation of a closed session returns its result or raises
        `SessionClosed`; it does not wait forever.

        Usually broken by futures that nothing completes any more.
        """
        session = bench.start()
        futures: list[Any] = []
        for _ in range(10):
            futures.append(bench.client.forward_backward(session, bench.batch(1)))
            futures.append(bench.client.optim_step(session, bench.learning_rate))
        bench.client.close_session(session)
        for future in futures:
            with contextlib.suppress(SessionClosed):
                bench.client.await_(future, timeout=60)

    @unless_synthetic
    def test_an_unknown_model_is_not_found(self, bench: Bench, unknown_model: str) -> None:
        """`start_session` itself raises `NotFound` for a model that does not exist.

        Usually broken by a session that is made now and loaded later: the error comes when the
        data is ready, or from another call.
        """
        refuses(NotFound, bench.client.start_session, replace(bench.config, model=unknown_model))

    @unless_synthetic
    def test_what_a_session_cannot_honour_is_refused(self, bench: Bench) -> None:
        """A revision that does not exist, and a target of a low-rank update that does not, are
        errors of `start_session`.

        Usually broken by fields of the config that are never read.
        """
        refuses(
            (NotFound, InvalidInput, Unsupported),
            bench.client.start_session,
            replace(bench.config, revision="conformance-no-such-revision"),
        )
        refuses(
            (InvalidInput, Unsupported),
            bench.client.start_session,
            replace(bench.config, lora=LoraConfig(rank=2, targets=("conformance-no-such-target",))),
        )

    def test_a_low_rank_update_begins_at_the_model(self, bench: Bench) -> None:
        """A session that trains a low-rank update begins with the weights of one that trains all
        of them; either may be refused.

        Usually broken by an update that does not begin at zero, or a config that is not read.
        """
        sessions = []
        for lora in (None, LoraConfig(rank=1), LoraConfig(rank=4, alpha=8.0)):
            with contextlib.suppress(Unsupported):
                sessions.append(bench.start(lora=lora))
        assert sessions
        for session in sessions:
            bench.same(
                bench.logprobs(session, bench.probe), bench.logprobs(sessions[0], bench.probe)
            )

    def test_a_session_that_is_not_trainable_only_evaluates(self, bench: Bench) -> None:
        """With `trainable=False` a session refuses to train and evaluates as any other, or it is
        refused itself.

        Usually broken by ignoring the field: a reference model that moves.
        """
        try:
            session = bench.start(trainable=False)
        except Unsupported:
            return  # not ignored, which is what matters
        refuses(InvalidInput, bench.client.forward_backward, session, bench.batch(1))
        refuses(InvalidInput, bench.client.optim_step, session, bench.learning_rate)
        if bench.client.supports("forward"):
            other = bench.start()
            bench.same(bench.logprobs(session, bench.probe), bench.logprobs(other, bench.probe))

    def test_the_tokenizer_speaks_the_model_s_tokens(self, bench: Bench) -> None:
        """The helper `get_tokenizer`, where there is one, gives token ids that the session
        reads and that become the text again.

        Usually broken by the tokenizer of another model.
        """
        session = bench.start()
        try:
            tokenizer = bench.client.helper("get_tokenizer")(session)
        except Unsupported:
            pytest.skip("has no helper `get_tokenizer`, which is optional")
        text = "2 + 3 = 5, said the cook."
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert all(isinstance(token, int) and 0 <= token < tokenizer.vocab_size for token in ids)
        assert tokenizer.decode(ids) == text
        assert tokenizer.eos_token_id is None or isinstance(tokenizer.eos_token_id, int)
        result = bench.forward_backward(session, [datum(ids, weights=np.ones(len(ids) - 1))])
        assert joined(result).shape == (len(ids) - 1,)
