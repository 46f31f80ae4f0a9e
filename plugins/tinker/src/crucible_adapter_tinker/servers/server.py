"""A server of Tinker's API: models to train, their checkpoints, and what they are sampled from.

`Server` is one that computes what the contract says: sums. `skyrl` has the one that does not.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from crucible_kitchen import (
    AdamParams,
    AdapterError,
    InvalidInput,
    LoraConfig,
    NotFound,
    SessionConfig,
    Unsupported,
)

from ..failures import asked
from ..live import Live
from ..names import Clock, Path, parsed_name, parsed_path
from ..options import Kind, ServerOptions
from ..passes import Batch
from .routes import Routes

TARGETS = ("attn", "mlp", "unembed")


@dataclass(eq=False)
class Model:
    """A model on a server.

    Args:
        client: the SDK's training client.
        clock: of its optimizer, where the server needs it; None also if nobody knows it.
        batches: accumulated since its last step, where the server needs them for the step.
        emptied: whether what an earlier model left in its slot is gone.
    """

    client: Any
    clock: Clock | None = None
    batches: list[Batch] = field(default_factory=list)
    emptied: bool = False

    @property
    def id(self) -> str:
        return str(self.client.model_id)


class Server:
    """One that speaks the API as Thinking Machines' does."""

    kind: Kind = "tinker"
    name = "Tinker"
    ahead: ClassVar[bool] = True
    """Whether an operation may be sent while those in front of it have no result."""

    def __init__(self, opts: ServerOptions, routes: Routes, kind: Kind = "tinker") -> None:
        self.opts = opts
        self.routes = routes
        self.kind = kind
        self.name = {"tinker": "Tinker", "skyrl": "SkyRL", "tuft": "TuFT"}[kind]
        self.sdk = asked("no client for the server", self._new_sdk)

    # --- models ---

    def models(self) -> Mapping[str, int | None]:
        """Return the longest input of each model that the server has, by name; None is unknown."""
        rest = self.rest()
        ask = getattr(rest, "get_server_capabilities", self.sdk.get_server_capabilities)
        capabilities = asked("the server does not say what it has", lambda: self.resolved(ask()))
        return {
            each.model_name: each.max_context_length
            for each in capabilities.supported_models
            if each.model_name
        }

    def check(self, config: SessionConfig) -> None:
        """Refuse what the server cannot honour.

        Raises:
            Unsupported: a field of the config.
        """
        if config.revision is not None:
            raise Unsupported("a server has one revision of a model: `revision` must be None")
        lora = config.lora
        if lora is None:
            if config.trainable:
                raise Unsupported(
                    f"{self.name} trains low-rank updates alone; set `lora`, such as "
                    "{ rank = 32 }"
                )
            return
        if lora.dropout:
            raise Unsupported(f"{self.name} has no dropout: lora.dropout must be 0")
        if unknown := [target for target in lora.targets if target not in TARGETS]:
            raise Unsupported(
                f"{self.name} adapts {', '.join(TARGETS)}, not {', '.join(map(repr, unknown))} "
                "(lora.targets)"
            )
        self.check_lora(lora)

    def check_lora(self, lora: LoraConfig) -> None:
        """Refuse what this kind of server cannot honour."""
        alpha = 2 * lora.rank if self.kind == "tuft" else 32
        if lora.alpha != alpha:
            raise Unsupported(
                f"{self.name} sets lora.alpha itself: to {alpha} here, not to {lora.alpha:g}"
            )
        if not lora.targets:
            raise InvalidInput("lora.targets is empty: nothing would be trained")

    def create(self, config: SessionConfig) -> Model:
        """Make a model."""
        lora = config.lora or LoraConfig(rank=1)  # an update of zero, which is never trained
        return self._wait(
            f"no model {config.model!r} was made",
            lambda: self.sdk.create_lora_training_client(
                base_model=config.model,
                rank=lora.rank,
                seed=config.seed,
                train_attn="attn" in lora.targets,
                train_mlp="mlp" in lora.targets,
                train_unembed="unembed" in lora.targets,
            ),
        )

    def restore(self, config: SessionConfig, path: Path, reference: str, moments: bool) -> Model:
        """Make a model of a checkpoint, with its moments, or such that begin again."""
        create = self.sdk.create_training_client_from_state
        if moments:
            create = self.sdk.create_training_client_from_state_with_optimizer
        return self._wait(f"{reference!r} was not restored", lambda: create(reference))

    def release(self, model: Model) -> None:
        """Free the server's slot, where it has any. A failure is the server's affair."""
        if self.kind == "tuft":
            with contextlib.suppress(AdapterError):
                self.routes.post("unload_model", {"model_id": model.id})

    def abandon(self, model: Model) -> None:
        """Give up a model of which an operation has failed, and which is released later."""

    # --- operations: each returns the SDK's futures, the last of which has the result ---
    # One that makes several requests yields the future of each, and changes the model after it:
    # the SDK may refuse any.

    def forward(self, model: Model, batch: Batch) -> Sequence[Any]:
        return [model.client.forward(*batch.sent())]

    def forward_backward(self, model: Model, batch: Batch) -> Iterable[Any]:
        return [model.client.forward_backward(*batch.sent())]

    def check_step(self, adam: AdamParams) -> None:
        """Refuse what the server does not honour in a step."""

    def optim_step(self, model: Model, learning_rate: float, adam: AdamParams) -> Iterable[Any]:
        from tinker import types

        return [
            model.client.optim_step(
                types.AdamParams(
                    learning_rate=learning_rate,
                    beta1=adam.beta1,
                    beta2=adam.beta2,
                    eps=adam.eps,
                    weight_decay=adam.weight_decay,
                    grad_clip_norm=adam.grad_clip_norm,
                )
            )
        ]

    def save(self, model: Model, name: str) -> Sequence[Any]:
        """The result has the reference of a checkpoint, `path`."""
        return [model.client.save_state(name)]

    def save_weights(self, model: Model, name: str) -> Sequence[Any]:
        """The result has the reference of weights to sample from, `path`."""
        return [model.client.save_weights_for_sampler(name)]

    def publish(self, model: Model) -> Live:
        """Return weights to sample from, as they are now, for this process."""
        return Live(self.resolved(model.client.save_weights_and_get_sampling_client()))

    # --- checkpoints ---

    def find(self, reference: str, config: SessionConfig) -> Path:
        """Return the parts of a checkpoint's reference.

        Raises:
            NotFound: there is no such checkpoint.
            InvalidInput: it is of another model, or of an update of another rank.
        """
        path = parsed_path(reference)
        if path is None or not path.trainable:
            raise NotFound(
                f"{reference!r} is not a checkpoint: a reference is what `save_checkpoint` "
                "returned, tinker://.../weights/..."
            )
        rest = self.rest()
        info = asked(
            f"no checkpoint {reference!r}",
            lambda: self.resolved(rest.get_weights_info_by_tinker_path(reference)),
            refusal=NotFound,
        )
        if info.base_model != config.model:
            raise InvalidInput(
                f"checkpoint {reference!r} is of the model {info.base_model!r}, not of "
                f"{config.model!r}"
            )
        if config.lora and info.lora_rank not in (None, config.lora.rank):
            raise InvalidInput(
                f"checkpoint {reference!r} has an update of rank {info.lora_rank}, and the session "
                f"one of {config.lora.rank}"
            )
        return path

    def saved(self) -> Iterator[tuple[Any, str]]:
        """Yield when each was saved, and the reference of every checkpoint and of all weights that
        were saved with a name.
        """
        rest, page = self.rest(), 100
        for offset in itertools.count(0, page):
            ask = functools.partial(rest.list_user_checkpoints, limit=page, offset=offset)
            answer = asked("the checkpoints cannot be listed", lambda: self.resolved(ask()))  # noqa: B023
            for each in answer.checkpoints:
                yield each.time, each.tinker_path
            if len(answer.checkpoints) < page:
                return

    def delete(self, reference: str) -> None:
        """Delete a checkpoint, or weights. One that does not exist is fine.

        Raises:
            Unsupported: the server deletes nothing.
        """
        rest = self.rest()
        with contextlib.suppress(NotFound):
            asked(
                f"{reference!r} was not deleted",
                lambda: self.resolved(rest.delete_checkpoint_from_tinker_path(reference)),
                refusal=NotFound,
            )

    # --- the SDK ---

    def rest(self) -> Any:
        """Return the SDK's client of what needs no session."""
        import tinker

        made = getattr(tinker, "RestClient", None)
        if made is not None and "base_url" in inspect.signature(made.__init__).parameters:
            return asked("no client for the server", lambda: made(**self._address()))
        return asked("no client for the server", lambda: self.sdk.create_rest_client())

    def close(self) -> None:
        with contextlib.suppress(Exception):  # whatever the server still has to say
            if hasattr(self.sdk, "close"):
                self.sdk.close("success").result(self.opts.connect_timeout)
            elif holder := vars(self.sdk).get("_session_holder"):  # older SDKs close that alone
                holder.close()
        self.routes.close()

    def _address(self) -> dict[str, Any]:
        key = self.opts.api_key
        return {
            "base_url": self.opts.base_url,
            "api_key": key.get_secret_value() if key is not None else None,
        }

    def _new_sdk(self) -> Any:
        import tinker

        return tinker.ServiceClient(project_id=self.opts.project_id, **self._address())

    def _wait(self, what: str, ask: Any) -> Model:
        """Ask for a training client and wait for it."""
        return Model(asked(what, lambda: self.resolved(ask())))

    def resolved(self, answer: Any) -> Any:
        """Return what newer SDKs return a future of, and older ones return."""
        return answer.result(self.opts.timeout) if hasattr(answer, "result") else answer


def clock_of(path: Path) -> Clock | None:
    """Return the clock of a checkpoint; None if its name does not say it."""
    name = parsed_name(path.name)
    return name.clock if name else None
