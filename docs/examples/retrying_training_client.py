"""Ask again when waiting for a training operation fails for a moment."""

import time

from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    ForwardBackwardResult,
    Future,
    OptimStepResult,
    TrainingClient,
    hookimpl,
)


class Options(AdapterOptions):
    inner: TrainingClient
    """Where the calls go."""
    max_retries: int = 3
    """How often to ask again."""
    pause: float = 1.0
    """Seconds before the first repetition; each later one waits twice as long."""


@hookimpl
def await_(
    opts: Options, future: Future[ForwardBackwardResult | OptimStepResult], timeout: float | None
) -> ForwardBackwardResult | OptimStepResult:
    for attempt in range(opts.max_retries):
        try:
            return opts.inner.await_(future, timeout)
        except AdapterError as error:
            if timeout is not None or not error.retryable:
                raise  # callers with a time limit ask again themselves
            time.sleep(opts.pause * 2**attempt)
    return opts.inner.await_(future, timeout)
