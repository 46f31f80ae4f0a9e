"""Models made here, with random weights and a tokenizer of bytes."""

from __future__ import annotations

from typing import Any

import torch
from crucible_kitchen import InvalidInput, NotFound, did_you_mean
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..options import RandomModel
from ..randomness import seeded
from .byte_tokenizer import BYTES, byte_tokenizer
from .decoders import looking_back
from .tokenizer import HuggingFaceTokenizer


def make_model(name: str, wanted: RandomModel, seed: int) -> Any:
    """Return a Transformers model with random float32 weights, a function of the seed.

    Raises:
        NotFound: Transformers knows no such architecture.
        InvalidInput: a size that the architecture does not know or refuses.
        Unsupported: the architecture is not a causal language model.
    """
    config = configured(name, wanted)
    with seeded(seed):
        try:
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # what the configuration's own checks do not see
            raise InvalidInput(
                f"models.{name}: no {config.model_type} can be made of these sizes: "
                f"{type(error).__name__}: {error}"
            ) from error


def configured(name: str, wanted: RandomModel) -> Any:
    """Return the Transformers configuration of such a model.

    Raises:
        NotFound, InvalidInput, Unsupported: see `make_model`.
    """
    return looking_back(_configuration(name, wanted), name)


def make_tokenizer(name: str, wanted: RandomModel) -> HuggingFaceTokenizer:
    """Return the tokenizer of such a model.

    Raises:
        NotFound: the file of its chat template cannot be read.
        InvalidInput: that file is not UTF-8.
    """
    return HuggingFaceTokenizer(byte_tokenizer(wanted.special_tokens, _chat_template(name, wanted)))


def _configuration(name: str, wanted: RandomModel) -> Any:
    where = f"models.{name}"
    if wanted.model_type not in CONFIG_MAPPING:
        raise NotFound(
            f"{where}: Transformers knows no model_type {wanted.model_type!r}"
            f"{did_you_mean(wanted.model_type, CONFIG_MAPPING)}"
        )
    kind = CONFIG_MAPPING[wanted.model_type]
    # An alias (`hidden_size` of GPT-2 is `n_embd`) is known, too.
    known = {*kind.__dataclass_fields__, *kind.attribute_map}
    for key in wanted.sizes:
        if key not in known:
            raise InvalidInput(
                f"{where}: a {wanted.model_type} has no {key!r}{did_you_mean(key, sorted(known))}"
            )
    tokens = BYTES + len(wanted.special_tokens)
    sizes = {"vocab_size": tokens, **wanted.sizes}
    end = {token: tokens - 1 for token in ("bos_token_id", "eos_token_id") if token in known}
    if sizes["vocab_size"] < tokens:
        raise InvalidInput(
            f"{where}: vocab_size is {sizes['vocab_size']}, but the tokens are the bytes and "
            f"{', '.join(wanted.special_tokens)}, {tokens} in all"
        )
    try:
        return kind(**{**end, "pad_token_id": None, **sizes})
    except Exception as error:  # each architecture has its own checks and exceptions
        raise InvalidInput(f"{where}: {error.__cause__ or error}") from error


def _chat_template(name: str, wanted: RandomModel) -> str | None:
    path = wanted.chat_template
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise NotFound(f"models.{name}.chat_template: {path} cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"models.{name}.chat_template: {path} is not UTF-8: {error}") from error
