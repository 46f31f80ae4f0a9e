"""The workers' side of a hand-over of weights; it runs in the processes of vLLM's engine.

vLLM imports this module into each worker, since its engine is given `Extension` as the worker's
extension, and finds `MemoryReceiver` by the name `BACKEND`, under which the module registers it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from .shared_memory import Chunk, mapped

BACKEND = "crucible"


@dataclass
class Start(WeightTransferInitInfo):  # type: ignore[misc]
    """Nothing has to be agreed upon before the first weights come."""


@dataclass
class Received(Chunk, WeightTransferUpdateInfo):  # type: ignore[misc]
    """A chunk, as vLLM wants it to be called."""


class MemoryReceiver(WeightTransferEngine[Start, Received]):  # type: ignore[misc]
    """Loads weights from shared memory, chunk by chunk, into the model that is served."""

    init_info_cls = Start
    update_info_cls = Received

    def init_transfer_engine(self, init_info: Start) -> None:
        """Do nothing; see `Start`."""

    def start_weight_update(self) -> None:
        """Make the model ready for weights of a checkpoint.

        Raises:
            RuntimeError: vLLM cannot replace the weights of such a model.
        """
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload
        from vllm.platforms import current_platform

        self._on_cpu = current_platform.is_cpu()
        if self._on_cpu and any(_has_experts(module) for module in self.model.modules()):
            raise RuntimeError(
                "vLLM 0.32 does not pack the experts of a mixture again when it gets other weights "
                "on a CPU, and would sample from wrong ones"
            )
        # Once each, as long as the model still knows which of them are tied.
        self._missing: set[str] | None = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Received) -> None:
        """Load a chunk. The memory stays mapped for as long as a tensor of it is waiting for the
        rest of its layer.
        """
        from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

        with disable_mtp_completeness_check():
            loaded = self.model.load_weights(mapped(update_info))
        if loaded is None or self._missing is None:  # some models do not say
            self._missing = None
        else:
            self._missing -= loaded

    def finish_weight_update(self) -> None:
        """Put the weights in use.

        Raises:
            RuntimeError: a parameter of the model was not among them.
        """
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        if self._on_cpu:
            self._pack_embeddings()
        # Quantization adds parameters that it computes itself.
        if self._missing and self.model_config.quantization is None:
            raise RuntimeError(
                f"{len(self._missing)} weights were not handed over, such as {min(self._missing)}"
            )

    def _pack_embeddings(self) -> None:
        """On a CPU vLLM 0.32 multiplies by a packed copy, which it does not make again for an
        unembedding that is tied to the embedding, since no weight is loaded for it.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

        for module in self.model.modules():
            if isinstance(module, VocabParallelEmbedding):
                module.quant_method.process_weights_after_loading(module)

    def shutdown(self) -> None:
        """Do nothing: no connection is kept."""


def _has_experts(module: Any) -> bool:
    return hasattr(getattr(module, "quant_method", None), "moe_kernel")


class Extension:
    """Extends vLLM's worker by nothing: naming it imports this module into the worker."""


with contextlib.suppress(ValueError):  # registered before
    WeightTransferEngineFactory.register_engine(BACKEND, MemoryReceiver)
