"""Processes that share sessions of the adapter `torch`, as packages that start them do."""

from __future__ import annotations

import dataclasses
import datetime
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from crucible_kitchen import AdamParams, AdapterError, Datum, SessionConfig

if TYPE_CHECKING:
    from crucible_adapter_torch.distributed import Facts, Rank

TIMEOUT = 60
"""Seconds that a rank waits for the others."""


class Ranks:
    """Processes, each of which is a rank of each group of as many or fewer.

    Args:
        count: of them.
    """

    def __init__(self, count: int) -> None:
        # Of one process that has imported PyTorch, which takes seconds, and does nothing else.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            [
                "crucible_adapter_torch.distributed",
                "peft",
                "transformers.models.llama.modeling_llama",
            ]
        )
        self._folder = tempfile.TemporaryDirectory()
        self._pipes: list[Connection] = []
        self._processes = []
        self._groups = 0
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function of a module in the first ranks, as a group; return what each returned.

        Raises:
            AssertionError: it failed in one of them.
        """
        self._groups += 1
        store = Path(self._folder.name) / str(self._groups)
        for pipe in self._pipes[:count]:
            pipe.send((count, f"file://{store}", function, arguments))
        results = []
        for rank, pipe in enumerate(self._pipes[:count]):
            assert pipe.poll(2 * TIMEOUT), f"rank {rank} does not answer"
            results.append(pipe.recv())
        for rank, (failure, _) in enumerate(results):
            assert failure is None, f"rank {rank}: {failure}"
        return [result for _, result in results]

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._folder.cleanup()


def _serve(rank: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    while True:
        try:
            count, store, function, arguments = pipe.recv()
        except EOFError:
            return
        limit = datetime.timedelta(seconds=TIMEOUT)
        dist.init_process_group("gloo", store, limit, world_size=count, rank=rank)
        try:
            pipe.send((None, function(*arguments)))
        except BaseException:
            pipe.send((traceback.format_exc(), None))
        dist.destroy_process_group()


# --- what ranks do ---


@dataclasses.dataclass(frozen=True)
class Plan:
    """Training that a session of ranks does.

    Args:
        opts: of the training client.
        config: of the session.
        strategy: of the ranks.
        batches: of each step, some batches.
        adam: of all steps.
        rate: of all steps.
        loss_fn: of all batches.
        loss_config: its complete config.
        load: a checkpoint to begin with.
        score: datums, whose log probabilities are found before each step, and at the end.
        outputs: what else to do at the end: `checkpoint`, `weights`, `live`, or the path of a
            folder to export the update to.
    """

    opts: Any
    config: SessionConfig
    strategy: Any = "ddp"
    batches: Sequence[Sequence[Sequence[Datum]]] = ()
    adam: AdamParams = dataclasses.field(default_factory=AdamParams)
    rate: float = 1e-3
    loss_fn: str = "cross_entropy"
    loss_config: Mapping[str, float] = dataclasses.field(default_factory=dict)
    load: str | None = None
    score: Sequence[Datum] = ()
    outputs: Sequence[str] = ()


@dataclasses.dataclass
class Found:
    """What one rank found out: losses and norms of each step, and the rest of the plan."""

    losses: list[float] = dataclasses.field(default_factory=list)
    norms: list[float] = dataclasses.field(default_factory=list)
    logprobs: dict[int, Any] = dataclasses.field(default_factory=dict)
    outputs: dict[str, Any] = dataclasses.field(default_factory=dict)


def follow(plan: Plan) -> Found:
    """Do what a plan says, on this rank."""
    session, found = _session(plan), Found()
    if plan.load:
        session.load_checkpoint(plan.load, True)
    for batches in plan.batches:
        loss = 0.0
        for batch in batches:
            own = _shared(batch)
            loss += session.forward_backward(own, plan.loss_fn, plan.loss_config).loss
        found.losses.append(loss)
        if plan.score:  # which must leave nothing that the step makes out of date
            session.forward(_shared(plan.score), plan.loss_fn, plan.loss_config)
        norm = session.optim_step(plan.rate, plan.adam).grad_norm
        assert norm is not None
        found.norms.append(norm)
    if plan.score:
        places = [*_shared(range(len(plan.score)))]
        own = [plan.score[place] for place in places]
        outputs = session.forward(own, plan.loss_fn, plan.loss_config).outputs
        found.logprobs = dict(zip(places, [out["logprobs"] for out in outputs], strict=True))
    for output in plan.outputs:
        if output == "checkpoint":
            saved = session.save_checkpoint("ranks")
            found.outputs[output] = saved and saved.result()
        elif output == "weights":
            found.outputs[output] = session.save_weights("ranks")
        elif output == "live":
            found.outputs[output] = session.live()
        else:
            session.export(Path(output), False)
    session.close()
    return found


def follow_with_spares(plan: Plan) -> Found:
    """Do as `follow`, with a model that has weights of ones that not all passes use.

    Their names end with what uses them: `spare_nothing`, of a layer and outside of the layers; and
    `spare_0` and `spare_255`, that token.
    """
    import torch
    from crucible_adapter_torch.models import loading
    from torch import nn

    load = loading.load

    def added(module: Any, inputs: Any, output: Any) -> Any:
        [ids] = inputs
        for token in (0, 255):
            if (ids == token).any():
                output = output + getattr(module, f"spare_{token}")
        return output

    def loaded(*args: Any, **kwargs: Any) -> Any:
        language = load(*args, **kwargs)
        inner = language.model.model
        for module, use in [
            (inner.layers[0], "nothing"),
            (inner.embed_tokens, "nothing"),
            (inner.embed_tokens, "0"),
            (inner.embed_tokens, "255"),
        ]:
            module.register_parameter(f"spare_{use}", nn.Parameter(torch.ones(16)))
        inner.embed_tokens.register_forward_hook(added)
        return language

    loading.load = loaded
    try:
        return follow(plan)
    finally:
        loading.load = load


def share(batch: Sequence[Any], rank: int, size: int) -> Sequence[Any]:
    """Return a rank's part of a batch: the last one gets a third of the others', or nothing."""
    cuts = np.linspace(0, len(batch), 3 * size - 1)[::3].round().astype(int)
    ends = [*cuts[1:], len(batch)]
    return batch[cuts[rank] : ends[rank]]


def fail_a_step(plan: Plan) -> tuple[str, bool]:
    """Take the first step of a plan, which fails; return why, and whether all weights are as they
    were.
    """
    session, own = _session(plan), _shared(plan.batches[0][0])
    session.forward_backward(own, plan.loss_fn, plan.loss_config)
    before, reason = session.live(), ""
    try:
        session.optim_step(plan.rate, plan.adam)
    except AdapterError as error:
        reason = error.reason
    after = session.live()
    session.close()
    if before is None or after is None:  # rank 0 alone has them
        return reason, True
    return reason, all(np.array_equal(w, after.arrays[n]) for n, w in before.arrays.items())


def refused(plan: Plan) -> tuple[str, str]:
    """Do what a plan says; return the type and the text of the error that it ends with."""
    try:
        follow(plan)
    except AdapterError as error:
        return type(error).__name__, error.reason
    return "", ""


def refused_here(plans: Sequence[Plan]) -> tuple[str, str]:
    """Do as `refused`, but each rank with its own plan."""
    import torch.distributed as dist

    return refused(plans[dist.get_rank()])


def logprobs_in_training(plan: Plan) -> list[Any]:
    """Return the log probabilities of the first batch of a plan in a pass with a gradient, as a
    rank finds them that is given the whole batch.
    """
    session = _session(plan)
    outputs = session.forward_backward(plan.batches[0][0], plan.loss_fn, plan.loss_config).outputs
    session.close()
    return [output["logprobs"] for output in outputs]


def facts_of(plan: Plan, room: Sequence[int] = ()) -> Facts:
    """Return the facts of a session; `room` is how many tokens each rank finds room for."""
    import torch.distributed as dist
    from crucible_adapter_torch.training import budget

    fitting = budget.fitting
    if room:
        budget.fitting = lambda *_: room[dist.get_rank()]
    session = _session(plan)
    budget.fitting = fitting
    facts = session.facts()
    session.close()
    return facts


def _session(plan: Plan) -> Rank:
    from crucible_adapter_torch.distributed import Rank

    return Rank(plan.opts, plan.config, strategy=plan.strategy)


def _shared(batch: Sequence[Any]) -> Sequence[Any]:
    import torch.distributed as dist

    return share(batch, dist.get_rank(), dist.get_world_size())
