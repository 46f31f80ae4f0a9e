"""The base of every table that a user writes: options, configurations, tables within them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationInfo, model_validator

from ..masking.models import Masked
from .renamed import with_new_names


class Frozen(Masked):
    """A model that cannot be changed, refuses unknown keys and shows no secret.

        class Login(Frozen):
            user: str = "me"
            \"\"\"Name of the account.\"\"\"

    The docstrings of its fields are their descriptions, and defaults are validated like values.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    foreign_names: ClassVar[Mapping[str, str]] = {}
    """Keys that users bring from other tools, for messages: the model's own key, or a hint.

    Those of the outermost model count. A key within a table is written with dots:
    `{"lr": "learning_rate", "lora.r": "lora.rank"}`.
    """

    @model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, data: Any, info: ValidationInfo) -> Any:
        return with_new_names(cls, data, info.context)
