"""Options: what a user may set about an adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from pydantic import PrivateAttr, ValidationInfo, model_validator

from .environment import variable_of
from .frozen import Frozen
from .renamed import with_new_names


class ResourceCache(dict[Any, Any]):
    """The resources that were made for one options object; see `resources`.

    It is a private attribute of the options, so it lives exactly as long as they do, by identity
    and without a global table. pydantic compares private attributes, too; resources are not part of
    the value of options, so any two caches are equal.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResourceCache)

    __hash__ = None


class AdapterOptions(Frozen):
    """The base of an adapter's `Options`: frozen, no unknown keys, documented by docstrings.

        class Options(AdapterOptions):
            bucket: str
            \"\"\"Bucket that holds every blob.\"\"\"
            api_key: Annotated[SecretStr, FromEnv("ACME_API_KEY")]
            \"\"\"Key of the Acme account.\"\"\"

    An option annotated with a port (`inner: TrainingClient`, `stores: list[MetricsStore]`) is
    another adapter, given by name or as a table, and arrives bound. Secrets are `SecretStr`.
    Neither `repr` nor a dump shows one, nor the password of a URL; see `Masked`.
    """

    _resources: ResourceCache = PrivateAttr(default_factory=lambda: ResourceCache())

    @model_validator(mode="before")
    @classmethod
    def _defaults_from_environment(cls, data: Any, info: ValidationInfo) -> Any:
        data = with_new_names(
            cls, data, info.context
        )  # first, since a variable is no more than a default
        if not isinstance(data, Mapping):
            return data
        environ: Mapping[str, str] = (info.context or {}).get("environ", os.environ)
        found = {
            name: environ[variable]
            for name, field in cls.model_fields.items()
            if name not in data and (variable := variable_of(field, environ))
        }
        return {**data, **found}

    # A copy, or an options object that travelled to another process, starts without resources.

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._resources = ResourceCache()
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return type(self).model_validate(dict(self))

    def __getstate__(self) -> dict[Any, Any]:
        state = dict(super().__getstate__())
        state["__pydantic_private__"] = {"_resources": ResourceCache()}
        return state


def resource_cache(opts: AdapterOptions) -> ResourceCache:
    """Return the resources of an options object.

    Read from `__pydantic_private__`, not as `opts._resources`: pydantic looks for a private
    attribute everywhere else first, which takes longer than the rest of a call (5 us, measured with
    2.14).
    """
    private = opts.__pydantic_private__
    assert private is not None
    cache: ResourceCache = private["_resources"]
    return cache
