"""Keep what Transformers and its libraries print out of the caller's terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars, reports and retries. Errors are raised as usual."""
    bars = transformers_logging.is_progress_bar_enabled()
    loggers = [
        logging.getLogger(name) for name in ("transformers", "huggingface_hub", "bitsandbytes")
    ]
    levels = [logger.level for logger in loggers]
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
