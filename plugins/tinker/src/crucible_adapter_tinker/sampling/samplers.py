"""What models are sampled with: a client of the SDK for each reference."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crucible_kitchen import LoraConfig, NotFound, SessionConfig

from .. import live
from ..failures import asked
from ..names import parsed_path
from ..servers.server import Model, Server


@dataclass(eq=False)
class _Sampler:
    """A client of the SDK, and the slot of the server that is used for it alone, if one is."""

    client: Any
    slot: Model | None = None
    users: int = 0


class Samplers:
    """The clients that were made, each kept until another takes its place.

    Args:
        server: of the models.
        most: how many are kept, those in use aside.
    """

    def __init__(self, server: Server, most: int) -> None:
        self._server = server
        self._most = most
        self._made: OrderedDict[str, _Sampler] = OrderedDict()
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def using(self, model: str) -> Iterator[Any]:
        """Keep the SDK's sampling client of a model within the block.

        Args:
            model: a name of the server, a reference of weights that were saved there, or one that
                a training client of this process has published.

        Raises:
            NotFound: there is no such model.
        """
        with self._lock:
            if model.startswith(live.PREFIX):
                live.find(model)  # it may have been withdrawn since
            if model not in self._made:
                self._made[model] = self._make(model)
                self._make_room()
            self._made.move_to_end(model)
            sampler = self._made[model]
            sampler.users += 1
        try:
            yield sampler.client
        finally:
            with self._lock:
                sampler.users -= 1
                self._make_room()

    def close(self) -> None:
        with self._lock:
            self._most = 0
            self._make_room()

    def _make(self, model: str) -> _Sampler:
        if model.startswith(live.PREFIX):
            found = live.find(model)
            return _Sampler(found.sampler) if found.sampler is not None else self._slot(found.path)
        sdk = self._server.sdk
        if (path := parsed_path(model)) is None:
            if model not in (offered := self._server.models()):
                raise NotFound(
                    f"the server has no model {model!r}; it has {', '.join(sorted(offered))}"
                )
            return _Sampler(
                self._asked(model, lambda: sdk.create_sampling_client(base_model=model))
            )
        if path.trainable and self._server.kind == "skyrl":
            return self._slot(model)
        return _Sampler(self._asked(model, lambda: sdk.create_sampling_client(model_path=model)))

    def _slot(self, reference: str) -> _Sampler:
        """Restore a checkpoint to a slot of its own, which nobody trains."""
        server = self._server
        path = parsed_path(reference)
        assert path is not None, reference
        info = self._info(reference)
        config = SessionConfig(
            info.base_model, lora=LoraConfig(rank=info.lora_rank or 1), trainable=False
        )
        slot = server.restore(config, path, reference, True)
        try:
            client = self._asked(reference, slot.client.save_weights_and_get_sampling_client)
        except Exception:
            server.release(slot)
            raise
        return _Sampler(client, slot)

    def _info(self, reference: str) -> Any:
        rest = self._server.rest()
        return self._asked(reference, lambda: rest.get_weights_info_by_tinker_path(reference))

    def _asked(self, reference: str, ask: Any) -> Any:
        return asked(
            f"cannot sample from {reference!r}",
            lambda: self._server.resolved(ask()),
            refusal=NotFound,
        )

    def _make_room(self) -> None:
        """Let go of the least recently used."""
        for model in [name for name, each in self._made.items() if not each.users]:
            if len(self._made) <= self._most:
                return
            if slot := self._made.pop(model).slot:
                self._server.release(slot)
