"""What reasoning-gym has: data sets, curricula and prompts by name. It is imported on first use,
since the import takes 2 to 9 s.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crucible_kitchen import did_you_mean
from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

OF_STRING_HASHES = frozenset(
    ("isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder")
)
"""Data sets whose problems depend on the order of sets of strings, which each process draws anew
unless PYTHONHASHSEED is 0 (measured over all data sets, 0.1.25)."""
NUMBERED = ("seed", "size")
"""Settings of each data set that the environment makes itself."""


def check_name(name: str) -> None:
    """Check that a data set can be an environment.

    Raises:
        ValueError: there is none of this name, or its problems are not the same in each process.
    """
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        near = did_you_mean(name, DATASETS)
        raise ValueError(
            f"reasoning-gym has no data set {name!r}{near or '; it has ' + _all(sorted(DATASETS))}"
        )
    if name in OF_STRING_HASHES and sys.flags.hash_randomization:
        raise ValueError(
            f"the problems of {name} depend on how Python hashes strings, which each process draws "
            "at random, so that a run could not be resumed: set PYTHONHASHSEED=0 in the environment"
        )


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Check settings of a data set.

    Args:
        name: of the data set.
        config: some of its settings.

    Raises:
        ValueError: a setting that does not exist or does not fit.
    """
    from reasoning_gym.factory import DATASETS

    kind = DATASETS[name][1]
    fields = [each.name for each in dataclasses.fields(kind) if each.name not in NUMBERED]
    for key in config:
        if key in NUMBERED:
            raise ValueError(
                f"{key}: there is a problem for each number, and a run has its own order of them; "
                "leave it out"
            )
        if key not in fields:
            near = did_you_mean(key, fields)
            raise ValueError(f"{name} has no setting {key!r}{near or '; it has ' + _all(fields)}")
    try:
        valid = TypeAdapter(kind).validate_python({**dict(config), "seed": 0, "size": 1})
        if callable(validate := getattr(valid, "validate", None)):
            validate()
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        raise ValueError(
            "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems)
        ) from None
    except Exception as error:  # an assertion, mostly
        raise ValueError(f"{name} refuses it: {error or type(error).__name__}") from error
    for part in getattr(valid, "datasets", None) or ():  # of a composite
        check_name(part.name)
        check_config(part.name, part.config)


def settings_of_level(name: str, level: int | Mapping[str, int]) -> dict[str, Any]:
    """Return the settings that a data set has at a level of its curriculum.

    Args:
        name: of the data set.
        level: of all attributes, each at most its highest, or of some; others have their default.

    Raises:
        ValueError: there is no curriculum, no such attribute, or no such level.
    """
    from reasoning_gym.coaching.attributes import RangeAttributeDefinition
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(name):
        raise ValueError(f"{name} has no curriculum, so it has no levels")
    curriculum = create_curriculum(name)
    attributes = curriculum.attributes
    if isinstance(level, int):
        _check_level(name, level, max(len(each.levels) for each in attributes.values()))
        curriculum.set_global_level(level)
    else:
        for attribute, number in level.items():
            if attribute not in attributes:
                near = did_you_mean(attribute, attributes)
                raise ValueError(
                    f"the curriculum of {name} has no attribute {attribute!r}"
                    f"{near or '; it has ' + _all(attributes)}"
                )
            _check_level(f"{name}.{attribute}", number, len(attributes[attribute].levels))
            curriculum.set_attr_level(attribute, number)
    whole = curriculum.generate_configuration()
    fields = []
    for each in attributes.values():
        if isinstance(each, RangeAttributeDefinition):
            fields += [each.lower_field_name, each.upper_field_name]
        else:
            fields.append(each.field_name)
    return {field: getattr(whole, field) for field in fields}


def system_prompt(name: str) -> str:
    """Return the library's system prompt of a name; the name itself if there is none."""
    from reasoning_gym.utils import SYSTEM_PROMPTS

    return str(SYSTEM_PROMPTS.get(name, name)).strip()


def answer_in_tags(text: str) -> str | None:
    """Return what is in the last `<answer>` tags; None if there are none."""
    from reasoning_gym.utils import extract_answer

    found: str | None = extract_answer(text)
    return found


def make(name: str, config: Mapping[str, Any], seed: int, size: int) -> ProceduralDataset:
    """Make a data set of the problems `seed` to `seed + size - 1`."""
    from reasoning_gym.factory import DATASETS

    dataset, kind = DATASETS[name]
    return dataset(config=TypeAdapter(kind).validate_python({**config, "seed": seed, "size": size}))


def _check_level(name: str, level: int, count: int) -> None:
    if not 0 <= level < count:
        raise ValueError(f"{name} has the levels 0 to {count - 1}, not {level}")


def _all(names: Any) -> str:
    return ", ".join(names) or "none"
