"""The options of the environment. They are checked against the library when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from crucible_kitchen import EnvironmentOptions, Frozen, Keyword, Name, Template
from pydantic import Field, ValidationInfo, field_validator, model_validator

from . import library

HELD_OUT = 2**31
"""The first seed that a run evaluates on."""

Level: TypeAlias = Annotated[int, Field(ge=0)] | Mapping[str, Annotated[int, Field(ge=0)]]


class Stage(Frozen):
    """A part of a curriculum."""

    at: int = Field(default=0, ge=0, lt=HELD_OUT)
    """Its first problem. A run whose steps have B problems reaches it in step `at / B`."""
    level: Level
    """Of all attributes of the data set's curriculum, or a table of levels by attribute."""


class ReasoningGymOptions(EnvironmentOptions):
    dataset: Name = Field(examples=["countdown"])
    """Name of the data set."""
    config: Mapping[str, Keyword] = {}
    """The data set's own settings, such as { min_terms = 2, max_terms = 3 }; others have the
    library's defaults."""
    level: Level | None = None
    """Level of the data set's curriculum: of all its attributes, or a table such as
    { num_terms = 2 }, in which an attribute left out has the library's default."""
    curriculum: tuple[Stage, ...] = ()
    """Levels in the order of training, such as [{ level = 0 }, { at = 3200, level = 1 }]."""
    test_level: Level | None = None
    """Level of the problems that a run with a `curriculum` is evaluated on; that of its last stage
    if unset."""
    answer: Literal["tags", "text"] = "tags"
    """Where the answer is: in the last <answer></answer>, or the whole completion without white
    space around it."""
    as_chat: bool = True
    """Whether the question is a user's message, through the chat template, or text as it is."""
    system_prompt: Template | None = None
    """The system message, or the name of one of the library, such as "DeepSeekZero". If unset, the
    library's "default", which asks for the tags, where the answer is in tags; "" for none."""
    prompt: Template = "{question}"
    """Template of what is asked."""

    @field_validator("dataset")
    @classmethod
    def _exists(cls, name: str) -> str:
        library.check_name(name)
        return name

    @field_validator("config")
    @classmethod
    def _fits(cls, config: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        if "dataset" in info.data:
            library.check_config(info.data["dataset"], config)
        return config

    @field_validator("level", "test_level")
    @classmethod
    def _is_a_level(cls, level: Level | None, info: ValidationInfo) -> Level | None:
        if level is not None:
            _check_level(level, info)
        return level

    @field_validator("curriculum")
    @classmethod
    def _is_in_order(cls, stages: tuple[Stage, ...], info: ValidationInfo) -> tuple[Stage, ...]:
        starts = [stage.at for stage in stages]
        if starts and (starts[0] != 0 or starts != sorted({*starts})):
            raise ValueError(
                f"its stages begin at {', '.join(map(str, starts))}; the first begins at 0, and "
                "each other one after the one before it"
            )
        for stage in stages:
            _check_level(stage.level, info)
        return stages

    @field_validator("prompt")
    @classmethod
    def _asks(cls, prompt: str) -> str:
        if "{question}" not in prompt:
            raise ValueError("it must have {question} where the question goes")
        return prompt

    @model_validator(mode="after")
    def _say_one_thing(self) -> Self:
        if self.level is not None and self.curriculum:
            raise ValueError("level and curriculum both say the level of a problem; give one")
        if self.test_level is not None and not self.curriculum:
            raise ValueError(
                "test_level goes with a curriculum; without one all problems have `level`"
            )
        if self.system_prompt and not self.as_chat:
            raise ValueError("system_prompt is a message, and as_chat = false asks no messages")
        return self

    def level_of(self, seed: int) -> Level | None:
        """Return the level of a problem; None without a curriculum."""
        if not self.curriculum:
            return self.level
        if seed >= HELD_OUT:
            return self.curriculum[-1].level if self.test_level is None else self.test_level
        return [stage.level for stage in self.curriculum if stage.at <= seed][-1]

    def config_of(self, seed: int) -> dict[str, Any]:
        """Return the settings of the data set that a problem comes from."""
        level = self.level_of(seed)
        of_level = {} if level is None else library.settings_of_level(self.dataset, level)
        return {**self.config, **of_level}

    def messages(self, question: str) -> Iterator[dict[str, str]]:
        """Yield the messages that ask a question."""
        system = self.system_prompt
        if system is None:
            system = "default" if self.answer == "tags" else ""
        if system:
            yield {"role": "system", "content": library.system_prompt(system)}
        yield {"role": "user", "content": question}


def _check_level(level: Level, info: ValidationInfo) -> None:
    if not {"dataset", "config"} <= info.data.keys():
        return  # what is wrong with those is said already
    name, config = info.data["dataset"], info.data["config"]
    of_level = library.settings_of_level(name, level)
    if both := [*of_level.keys() & config.keys()]:
        raise ValueError(f"the level sets {' and '.join(sorted(both))}, and so does config")
    try:
        library.check_config(name, {**config, **of_level})
    except ValueError as error:
        raise ValueError(f"level {level}: {error}") from error
