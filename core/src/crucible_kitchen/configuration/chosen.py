"""What a setting names and code makes: an environment with its options, or a reward.

Both are found when the settings are validated, so that a mistake in them is reported with its key,
its source and all other mistakes, before anything starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from ..adapters.discovery import ENVIRONMENTS
from ..adapters.finding import Found, find, imported
from ..environments import Environment, EnvironmentOptions
from ..environments.final_answer import final_answer
from ..environments.guarded import Guarded
from ..errors import AdapterLoadError, AdapterNotFound, CrucibleError, InvalidInput, described
from ..masking.models import visible
from ..messages.spelling import did_you_mean, nearest
from ..options.frozen import Frozen
from ..settings import miswritten
from .mistakes import carried
from .validation import validate

REWARDS: Mapping[str, Callable[..., Any]] = {"final_answer": final_answer}
"""The rewards of this package, by name."""


class ChosenEnvironment(NamedTuple):
    """The type of a setting that is an environment: a name, or a table whose `use` is one and whose
    other keys are its options. A name is an installed one, `module:name` or `file.py:name`; in
    code it may be the class or function itself.
    """

    name: str
    """Its name, as written."""
    options: EnvironmentOptions
    """Its options, validated."""
    factory: Callable[..., Any]
    """Makes one from its options, or from nothing."""
    package: str | None = None
    """The distribution that it comes with, if it is installed."""
    version: str | None = None
    """The distribution's version."""

    def make(self) -> Guarded:
        """Make one whose answers are checked; see `make_plain`."""
        return Guarded(self.make_plain(), self.name)

    def make_plain(self) -> Environment:
        """Make one.

        Raises:
            InvalidInput: it cannot be made, or is not an environment.
        """
        takes_options = options_class(self.factory) is not None
        try:
            made = self.factory(self.options) if takes_options else self.factory()
        except CrucibleError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"the environment {self.name} cannot be made: {described(error)}"
            ) from error
        if not isinstance(made, Environment):
            raise InvalidInput(
                f"the environment {self.name} is a {type(made).__name__}, which has not both "
                "methods of an environment, reset(seed) and step(completion)"
            )
        return made

    @staticmethod
    def options_of(use: Any) -> type[EnvironmentOptions] | None:
        """Return the class of the options of the environment that `use` names, or is."""
        return options_class(find(ENVIRONMENTS, use).value if isinstance(use, str) else use)

    def describe(self) -> dict[str, Any]:
        """Return its name and its options as plain data, secrets masked."""
        return {"use": self.name, **visible(self.options)}

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            _chosen_environment,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.describe),
        )


def _chosen_environment(value: Any, info: ValidationInfo) -> ChosenEnvironment:
    if isinstance(value, ChosenEnvironment):
        return value
    table = dict(value) if isinstance(value, Mapping) else {"use": value}
    use = table.pop("use", None)
    if use is None or use == "":
        near = nearest("use", table)
        hint = f"; did you mean 'use', not {near!r}?" if near else ""
        raise PydanticCustomError(
            "no_use", 'name the environment: use = "<name>"{hint}', {"hint": hint}
        )
    if why := miswritten(use):
        raise PydanticCustomError("miswritten", "{why}", {"why": why})
    try:
        found = find(ENVIRONMENTS, use) if isinstance(use, str) else Found(use, _path_of(use))
        if not callable(found.value):
            raise AdapterLoadError(
                f"the environment {found.name} is not a class or a function, it is {found.value!r}"
            )
        model = options_class(found.value) or EnvironmentOptions
    except CrucibleError as error:
        raise carried(error) from error
    name = use if isinstance(use, str) else found.name
    context = {"environ": {}, **(info.context or {})}
    try:
        options = validate(model, table, context, name)
    except (ValidationError, KeyboardInterrupt):
        raise
    except BaseException as error:  # in a validator of the package's own
        broken = AdapterLoadError(f"the options of {name!r} raised {type(error).__name__}")
        broken.__cause__ = error
        raise carried(broken) from error
    return ChosenEnvironment(name, options, found.value, found.package, found.version)


class OneEnvironment(Frozen):
    """A table that holds an environment and nothing else."""

    environment: ChosenEnvironment
    """The environment."""


def options_class(factory: Callable[..., Any]) -> type[EnvironmentOptions] | None:
    """Return the class that the argument of an environment's class or function is annotated with;
    None if it takes no argument.

    Raises:
        AdapterLoadError: it takes something else.
    """
    try:
        parameters = [
            each
            for each in inspect.signature(factory, eval_str=True).parameters.values()
            if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
    except (TypeError, ValueError, NameError) as error:
        raise AdapterLoadError(
            f"the arguments of the environment {factory!r} cannot be found out: {error}"
        ) from error
    if not parameters:
        return None
    found = parameters[0].annotation
    required = [each for each in parameters[1:] if each.default is each.empty]
    if isinstance(found, type) and issubclass(found, EnvironmentOptions) and not required:
        return found
    raise AdapterLoadError(
        f"the environment {factory!r} must take one argument, annotated with a class derived from "
        "crucible_kitchen.EnvironmentOptions, or none"
    )


class ChosenReward(NamedTuple):
    """The type of a setting that is a reward: the name of one of this package, `module:function` or
    `file.py:function`; in code it may be the function itself.
    """

    name: str
    """Its name, as written."""
    function: Callable[..., Any]
    """`reward(completion, row) -> float | Step`."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _chosen_reward,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda self: self.name),
        )


def _chosen_reward(value: Any) -> ChosenReward:
    if isinstance(value, ChosenReward):
        return value
    if isinstance(value, str):
        try:
            name, function = value, _reward_of(value)
        except CrucibleError as error:
            raise carried(error) from error
    else:
        name, function = _path_of(value), value
    if not callable(function):
        raise carried(AdapterLoadError(f"the reward {name} is not a function, it is {function!r}"))
    return ChosenReward(name, function)


def _reward_of(name: str) -> Any:
    if name in REWARDS:
        return REWARDS[name]
    if ":" in name:
        return imported(name, "reward")
    raise AdapterNotFound(
        f"no reward is named {name!r}{did_you_mean(name, REWARDS)}; there are "
        f'{", ".join(REWARDS)} and your own functions: "module:function" or "file.py:function"'
    )


def _path_of(value: Any) -> str:
    """Return where an object is defined, for messages and records."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}:{kind.__qualname__}"
