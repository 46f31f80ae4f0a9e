"""Options that hold a port: how pydantic validates and dumps one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

PortT = TypeVar("PortT")


def port_schema(
    port: type[PortT], describe: Callable[[PortT], dict[str, Any]]
) -> core_schema.CoreSchema:
    """Return the schema of a field annotated with a port.

    It takes a bound port as it is, and has the kitchen bind anything else: the validation context
    holds `bind(port, value)`.

    Args:
        port: the class.
        describe: returns what a dump shows of a bound port.
    """

    def build(value: Any, info: ValidationInfo) -> PortT:
        if isinstance(value, port):
            return value
        bind = (info.context or {}).get("bind")
        if bind is None:
            raise PydanticCustomError(
                "no_kitchen",
                "an adapter is bound by a Kitchen; here, pass a port that is bound already",
            )
        return cast(PortT, bind(port, value))

    return core_schema.with_info_plain_validator_function(
        build,
        serialization=core_schema.plain_serializer_function_ser_schema(describe),
    )
