"""A SkyRL server (tx, 0.3.0), and what the adapter makes up for.

All of it was found in its code and measured against it:

- Losses are means: see `passes`. A second `forward_backward` of a step would need to know of the
  first, so what is accumulated is passed over again when the step is made, in the right proportion.
- The gradient in a slot outlives the model that it belongs to: the next one in the slot begins with
  it. So a slot is emptied, by a step that changes no weight, before it is freed, and before the
  first pass. Not earlier: the first step of each model is compiled, which takes seconds.
- Restoring a checkpoint always restores the moments. To begin them again, a step whose betas are 0
  makes them 0. The count of steps stays, which corrects the bias of the moments; the learning rate
  and eps of later steps undo that, see `_as_if_begun`.
- Sampling from saved weights puts them into the slot of the model that they were saved from, over
  whatever is trained there, and does not look whether the slot has changed since. So a model that
  is trained is never sampled from: what is published is a checkpoint, which samplers restore to
  slots of their own, see `samplers`.
- A number that is not finite makes an answer of 500, which the SDK asks for again for ever. It gets
  a 400 instead, so that the operation fails.
- It goes on after a failure: the step behind a pass that was refused runs on a gradient of zero,
  and momentum moves the weights; behind one that was not finite it makes the weights NaN. On CPUs
  those of one slot make every pass over any other NaN, too: JAX multiplies them by zero. So nothing
  is sent before what is in front of it has succeeded, and a slot is freed as soon as that failed.
- It has no route to delete anything. What is deleted is forgotten here, with a warning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    CrucibleWarning,
    LoraConfig,
    NotFound,
    SessionConfig,
    Unsupported,
)

from ..failures import asked
from ..live import Live
from ..names import Clock, Path, new_name
from ..options import Kind, ServerOptions
from ..passes import Batch, step_result
from .routes import Routes
from .server import Model, Server, clock_of

_NOT_FINITE = (
    "SkyRL answers so if a number is not finite; in the first pass of a session also if a program "
    "that was killed left such a gradient in its slot: close the session, which empties the slot, "
    "and start it again"
)

_EMPTY = {"learning_rate": 0.0, "beta1": 0.0, "beta2": 0.0, "eps": 1e-8, "weight_decay": 0.0}
"""A step that leaves the weights, and makes the moments those of its gradient."""


class SkyrlServer(Server):
    ahead = False

    def __init__(self, opts: ServerOptions, routes: Routes, kind: Kind = "skyrl") -> None:
        super().__init__(opts, routes, kind)
        self._deleted: set[str] = set()

    # --- models ---

    def check_lora(self, lora: LoraConfig) -> None:
        super().check_lora(lora)
        if {*lora.targets} != {"attn", "mlp"}:
            raise Unsupported(
                "SkyRL 0.3 adapts attention and MLP, whatever it is asked for: lora.targets must "
                'be ["attn", "mlp"]'
            )

    def create(self, config: SessionConfig) -> Model:
        model = super().create(config)
        model.clock = Clock()
        return model

    def restore(self, config: SessionConfig, path: Path, reference: str, moments: bool) -> Model:
        clock = clock_of(path)
        if clock is None and not moments:
            raise Unsupported(
                f"how many steps the optimizer of {reference!r} has made is not known, since it, "
                "or one that it continues, was not saved by this adapter; SkyRL 0.3 restores the "
                "optimizer always: restore it with its optimizer"
            )
        if config.lora is None:
            rest = self.rest()
            info = self.resolved(rest.get_weights_info_by_tinker_path(reference))
            config = dataclasses.replace(config, lora=LoraConfig(rank=info.lora_rank or 1))
        model = self._create_empty(config) if config.trainable else self.create(config)
        try:
            # Not by `create_training_client_from_state`: the slot must be empty.
            asked(
                f"{reference!r} was not restored",
                lambda: self.resolved(model.client.load_state_with_optimizer(reference)),
            )
        except AdapterError:
            self.release(model)
            raise
        model.clock, model.emptied = clock, True
        if config.trainable and clock is not None and not moments:
            self._empty(model)
            model.clock = Clock(clock.server + 1, 0)
        return model

    def _create_empty(self, config: SessionConfig) -> Model:
        """Make a model, and empty its slot.

        A gradient that is not finite spoils what is trained by the very step that drops it, for 0
        times it is not 0. The slot is empty then, and takes another model.
        """
        for last in (False, True):
            model = self.create(config)
            try:
                asked("the slot was not emptied", functools.partial(self._await_empty, model))
            except AdapterError as error:
                self.release(model)
                if last or "not finite" not in str(error):
                    raise
            else:
                break
        return model

    def _await_empty(self, model: Model) -> None:
        step_result(self.resolved(self._step(model, _EMPTY)))

    def release(self, model: Model) -> None:
        self._unload(model, wait=bool(model.batches))

    def abandon(self, model: Model) -> None:
        self._unload(model, wait=True)

    def _unload(self, model: Model, wait: bool) -> None:
        """Free a slot.

        Args:
            model: whose slot it is.
            wait: until it is free, since its weights may be such that no other can be passed.
        """
        with contextlib.suppress(AdapterError):
            if model.batches:
                self._empty(model)
                model.batches.clear()
            unloaded = self.routes.post("unload_model", {"model_id": model.id})
            if wait:
                self.routes.post("retrieve_future", {"request_id": unloaded["request_id"]})

    def _empty(self, model: Model) -> None:
        """Drop the gradient of a model, by a step whose result nobody waits for."""
        self.routes.post("optim_step", {"model_id": model.id, "adam_params": _EMPTY})

    # --- operations ---

    def forward(self, model: Model, batch: Batch) -> Sequence[Any]:
        return [model.client.forward(*batch.sent_to_skyrl(1.0))]

    def forward_backward(self, model: Model, batch: Batch) -> Iterator[Any]:
        if not model.emptied:
            # What was left in the slot becomes the moments, and then they become 0.
            yield self._step(model, _EMPTY)
            yield self._step(model, _EMPTY)
            model.clock, model.emptied = Clock(2, 0), True
        if model.batches:  # its gradient comes with the step
            yield from self.forward(model, batch)
        else:
            yield model.client.forward_backward(*batch.sent_to_skyrl(len(batch)))
        model.batches.append(batch)

    def check_step(self, adam: AdamParams) -> None:
        if adam.grad_clip_norm:
            raise Unsupported(
                "SkyRL 0.3 does not clip gradients, and says nothing: grad_clip_norm must be 0, "
                f"not {adam.grad_clip_norm:g}"
            )
        if adam.weight_decay:
            raise Unsupported(
                "a step of SkyRL 0.3 decays the weights of every slot, those of other sessions and "
                f"of samplers too: weight_decay must be 0, not {adam.weight_decay:g}"
            )
        if not adam.eps > 0:
            raise Unsupported(f"SkyRL 0.3 wants eps above 0, not {adam.eps:g}")

    def optim_step(self, model: Model, learning_rate: float, adam: AdamParams) -> Iterator[Any]:
        yield from self._accumulated(model)
        clock = model.clock and model.clock.tick()
        if clock is not None:
            learning_rate, adam = _as_if_begun(clock, learning_rate, adam)
        params = {
            "learning_rate": learning_rate,
            "beta1": adam.beta1,
            "beta2": adam.beta2,
            "eps": adam.eps,
            "weight_decay": 0.0,  # see `check_step`
        }
        yield self._step(model, params)
        model.clock = clock
        model.batches.clear()

    def _step(self, model: Model, params: Mapping[str, float]) -> Any:
        from tinker import types

        return model.client.optim_step(types.AdamParams(**params))

    def _accumulated(self, model: Model) -> Iterator[Any]:
        """Pass over what was accumulated after the first batch.

        The first, of n datums, was sent with its gradient g times n. The step divides the sum by
        the number of datums of all passes, m. So that n g + (m - n) g + m (g' + g'' + ...) is left,
        over m, the first is sent again.
        """
        if len(model.batches) < 2:
            return
        first = len(model.batches[0])
        all_of_them = first + sum(map(len, model.batches))
        scales = [all_of_them - first, *[all_of_them] * (len(model.batches) - 1)]
        for batch, scale in zip(model.batches, scales, strict=True):
            yield model.client.forward_backward(*batch.sent_to_skyrl(scale))

    def save_weights(self, model: Model, name: str) -> Sequence[Any]:
        return self.save(model, name)

    def publish(self, model: Model) -> Live:
        saved = self.save(model, new_name("w", "", model.clock))
        return Live(path=self.resolved(saved[-1]).path)

    # --- checkpoints ---

    def find(self, reference: str, config: SessionConfig) -> Path:
        if reference in self._deleted:
            raise NotFound(f"checkpoint {reference!r} was deleted")
        return super().find(reference, config)

    def saved(self) -> Iterator[tuple[Any, str]]:
        offset, page = 0, 100
        while True:
            runs = self.routes.get("/api/v1/training_runs", limit=page, offset=offset)
            for run in runs["training_runs"]:
                route = f"/api/v1/training_runs/{run['training_run_id']}/checkpoints"
                for each in self.routes.get(route)["checkpoints"]:
                    if each["tinker_path"] not in self._deleted:
                        yield datetime.fromisoformat(each["time"]), each["tinker_path"]
            offset += page
            if len(runs["training_runs"]) < page:
                return

    def delete(self, reference: str) -> None:
        if not self._deleted:
            warnings.warn(
                "SkyRL 0.3 deletes no checkpoint: those that this program deletes are forgotten, "
                "and their files stay on the server until its administrator removes them",
                CrucibleWarning,
                stacklevel=2,
            )
        self._deleted.add(reference)

    # --- the SDK ---

    def _address(self) -> dict[str, Any]:
        address = super()._address()
        return {**address, "api_key": address["api_key"] or "tml-unused"}

    def _new_sdk(self) -> Any:
        import tinker

        final = httpx.AsyncClient(
            transport=_FinalAnswers(httpx.AsyncHTTPTransport(limits=httpx.Limits())),
            follow_redirects=True,
        )
        return tinker.ServiceClient(http_client=final, **self._address())


class _FinalAnswers(httpx.AsyncBaseTransport):
    """Makes an answer of 500 for a result one of 400, which the SDK takes for final.

    Others, such as 503, come from what is before a server that starts again: the SDK asks again.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if response.status_code != 500 or not request.url.path.endswith("/retrieve_future"):
            return response
        said = (await response.aread()).decode("utf-8", "replace")
        await response.aclose()
        detail = f"{said} (500; {_NOT_FINITE})"
        return httpx.Response(400, json={"detail": detail}, request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _as_if_begun(clock: Clock, learning_rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
    """Return what makes a step number `clock.server` the step number `clock.steps`.

    Adam moves a weight by -rate m / (1 - b1^n) / (sqrt(v / (1 - b2^n)) + eps). The server has the
    wrong n; the moments m and v are right.
    """
    if clock.server == clock.steps:
        return learning_rate, adam

    def unbiased(beta: float) -> float:
        """(1 - beta^server) / (1 - beta^steps)"""
        return (1 - beta**clock.server) / (1 - beta**clock.steps)

    second = math.sqrt(unbiased(adam.beta2))
    factor = unbiased(adam.beta1) / second
    return learning_rate * factor, dataclasses.replace(adam, eps=adam.eps / second)
