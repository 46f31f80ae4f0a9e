"""A typed client, and functions, as a package of an environment has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient


@dataclass
class Guess:
    number: int


@dataclass
class Answer:
    prompt: str
    guesses: int
    heard: str


class GuessClient(EnvClient[Guess, Answer, dict[str, Any]]):  # type: ignore[misc]
    def _step_payload(self, action: Guess) -> dict[str, Any]:
        return {"number": action.number}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[Answer]:
        answer = Answer(**payload["observation"])
        return StepResult(answer, payload.get("reward"), payload.get("done", False))

    def _parse_state(self, payload: dict[str, Any]) -> dict[str, Any]:
        return payload


def guess(text: str) -> Guess:
    found = re.search(r"\d+", text)
    if not found:
        raise ValueError("there is no number")
    return Guess(int(found[0]))


def show(answer: Answer) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{answer.prompt} ({answer.guesses})"}]


NUMBER = 3
