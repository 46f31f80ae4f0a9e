"""One engine of vLLM, in processes of its own, and the weights that it has at the moment."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import secrets
import threading
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from crucible_kitchen import AdapterError, InvalidInput, did_you_mean

from . import transfer
from .failures import refused
from .receiver import BACKEND

if TYPE_CHECKING:
    from concurrent.futures import Future

    from vllm.v1.engine.async_llm import AsyncLLM

    from .described import Model
    from .options import Options

T = TypeVar("T")

CPU_CACHE = 2**30
"""Bytes of keys and values on a CPU, where vLLM would take a share of all memory."""
_ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process that uses threads may hang
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",  # nothing is reported to anyone
}
"""What vLLM reads from the environment, unless it is set there."""


@dataclass(frozen=True, eq=False)
class Serving:
    """An engine with the weights that were asked for.

    Args:
        llm: vLLM's engine.
        version: what its answers say about weights that are the ones asked for.
        context: the most tokens of a prompt and its answer.
    """

    llm: AsyncLLM
    version: str
    context: int


class Engine:
    """Starts vLLM's engine when it is first needed. Its coroutines run in a thread of their own,
    in which requests of all threads meet, and are answered together.

    Answers from other weights have to wait until those in flight are complete; calls take turns in
    the order in which they came. Weights of a model of the same kind are handed over to the
    running engine, any other model gets an engine of its own in place of that one.
    """

    def __init__(self, opts: Options) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._opts = opts
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        self._turn = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._users = 0
        self._versions = itertools.count()
        self._llm: AsyncLLM | None = None
        self._kind: str | None = None
        self._name: str | None = None
        self._version = ""

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the engine's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the engine's thread; wait for its result."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @contextlib.asynccontextmanager
    async def serving(self, model: Model) -> AsyncIterator[Serving]:
        """Yield the engine with the weights of a model, which stay until the block is left.

        Raises:
            AdapterError: there can be no such engine, or it did not take the weights.
        """
        async with self._turn:
            if self._name != model.name or self._llm is None or self._llm.errored:
                await self._idle.wait()
                await self._take(model)
            llm = self._llm
            assert llm is not None
            now = Serving(llm, self._version, llm.model_config.max_model_len)
            self._users += 1
            self._idle.clear()
        try:
            yield now
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    def close(self) -> None:
        """End the engine's processes."""
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _take(self, model: Model) -> None:
        """Give the weights to the engine, which is made if there is none for this kind of model."""
        self._name = None  # whatever happens, those from before are not there any more
        self._version = f"{next(self._versions)}:{model.name}"
        try:
            kind = await asyncio.to_thread(lambda: model.kind)
            weights = model.weights()
            llm = self._llm
            if llm is None or llm.errored or kind != self._kind or weights is None:
                await self._stop()
                llm = self._llm = self._start(model)
                self._kind = kind
                await transfer.connect(llm)
                if model.live is None:
                    weights = None
            if weights is None:
                await llm.update_weight_version(self._version)
            else:
                await transfer.hand_over(llm, weights, self._version)
        except BaseException as error:  # cancelled ones as well: half of the weights may be there
            await self._stop()
            if isinstance(error, AdapterError) or not isinstance(error, Exception):
                raise
            raise refused(error) from error
        self._name = model.name

    def _start(self, model: Model) -> AsyncLLM:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        opts = self._opts
        on_cpu = current_platform.is_cpu()
        known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
        for key in opts.engine_args:
            if key not in known:
                raise InvalidInput(
                    f"engine_args: vLLM's engine has no argument {key!r}{did_you_mean(key, known)}"
                )
        cache = opts.kv_cache_bytes or (CPU_CACHE if on_cpu else None)
        own: dict[str, Any] = {"disable_log_stats": True}
        if on_cpu:
            # vLLM 0.32 rewinds the random numbers of a prompt that it reads in parts, which
            # torch's generator of a CPU cannot: the engine dies of it.
            own["enable_chunked_prefill"] = False
        dtype = model.dtype or ("float32" if on_cpu else "bfloat16")
        with model.written() as place:
            args = AsyncEngineArgs(
                model=place,
                revision=model.revision,
                tokenizer_revision=model.revision,
                skip_tokenizer_init=model.hf_tokenizer is None,
                load_format="auto" if model.live is None else "dummy",
                dtype=dtype if opts.dtype == "auto" else opts.dtype,
                max_model_len=opts.max_model_len,
                gpu_memory_utilization=opts.gpu_memory_utilization,
                kv_cache_memory_bytes=cache,
                max_num_seqs=opts.max_num_seqs,
                tensor_parallel_size=opts.tensor_parallel_size,
                enforce_eager=opts.enforce_eager,
                enable_prefix_caching=opts.enable_prefix_caching,
                trust_remote_code=opts.trust_remote_code,
                seed=secrets.randbits(31),  # requests without a seed are unpredictable
                generation_config="vllm",  # a model's own defaults are not what was asked for
                logprobs_mode="raw_logprobs",
                weight_transfer_config={"backend": BACKEND},
                worker_extension_cls="crucible_adapter_vllm.receiver.Extension",
                **{**own, **opts.engine_args},
            )
            return AsyncLLM.from_engine_args(args)

    async def _stop(self) -> None:
        llm, self._llm, self._kind, self._name = self._llm, None, None, None
        if llm is not None:
            # In this thread: while it blocks, vLLM's own task cannot take the end for a crash.
            llm.shutdown()

    async def _end(self) -> None:
        await self._stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
