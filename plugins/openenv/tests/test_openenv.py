"""Actions, observations and failures of environments on a real OpenEnv server."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_environment_openenv.environment import OpenEnv
from crucible_environment_openenv.options import OpenEnvOptions
from crucible_kitchen import (
    Completion,
    ConfigurationError,
    InvalidInput,
    Kitchen,
    Step,
    Unavailable,
)
from crucible_kitchen.settings import in_code
from crucible_kitchen.workflows import ProblemsConfig

CLIENT = Path(__file__).with_name("guess_client.py")
ACTION = {"number": "{completion}"}
TYPED = {
    "client": f"{CLIENT}:GuessClient",
    "action_function": f"{CLIENT}:guess",
    "observation_function": f"{CLIENT}:show",
}


@pytest.fixture
def make(server: str) -> Iterator[Any]:
    """Make environments of the game, and close them."""
    found: list[OpenEnv] = []

    def made(**options: Any) -> OpenEnv:
        found.append(OpenEnv(OpenEnvOptions(**{"base_url": server, **options})))
        return found[-1]

    yield made
    for environment in found:
        environment.close()


def said(environment: OpenEnv, text: str) -> Step:
    return environment.step(Completion(text, None, None, "stop"))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# --- an episode ---


def test_an_episode_is_played_on_the_server(make: Any) -> None:
    environment = make(action=ACTION, observation="{prompt}")
    assert environment.reset(5) == user("Guess, 0 to 9.")
    wrong = said(environment, "4")
    assert wrong == Step(reward=0.0, done=False, observation=user("It is larger."))
    assert said(environment, "9") == Step(reward=1.0)


def test_a_seed_is_a_problem_and_options_are_arguments_of_reset(make: Any) -> None:
    environment = make(action=ACTION, observation="{prompt}", reset={"highest": 0})
    assert environment.reset(1) == user("Guess, 0 to 0.")
    assert said(environment, "0").reward == 1


def test_without_a_template_an_observation_is_json(make: Any) -> None:
    environment = make(action=ACTION, as_chat=False)
    assert environment.reset(5) == (
        '{"prompt": "Guess, 0 to 9.", "guesses": 0, "heard": "nothing"}'
    )


def test_a_system_message_begins_the_conversation(make: Any) -> None:
    environment = make(action=ACTION, observation="{prompt}", system_prompt="Play.")
    assert environment.reset(5) == [
        {"role": "system", "content": "Play."},
        *user("Guess, 0 to 9."),
    ]
    assert said(environment, "4").observation == user("It is larger.")


def test_an_action_has_the_completion_wherever_the_template_says(make: Any) -> None:
    action = {"number": 4, "how": "as {completion}!"}
    environment = make(action=action, observation="{heard}", as_chat=False)
    assert environment.reset(5) == "nothing"
    assert said(environment, 'you "say" {number}').observation == 'as you "say" {number}!'


def test_a_typed_client_takes_and_returns_its_own_classes(make: Any) -> None:
    environment = make(**TYPED)
    assert environment.reset(5) == user("Guess, 0 to 9. (0)")
    assert said(environment, "4, I think").observation == user("It is larger. (1)")
    assert said(environment, "then 9").reward == 1


@pytest.mark.parametrize("options", [{"action": ACTION}, TYPED])
def test_a_completion_that_is_no_action_ends_the_episode_unparsed(
    make: Any, options: dict[str, Any]
) -> None:
    environment = make(**options)
    environment.reset(5)
    assert said(environment, "nine") == Step(reward=0.0, parsed=False)
    environment.reset(5)
    assert said(environment, "9").reward == 1


# --- failures ---


def test_a_session_that_the_server_has_ended_is_opened_again_at_a_reset(make: Any) -> None:
    environment = make(action=ACTION, observation="{prompt}")
    environment.reset(5)
    websocket = environment._connection._client.async_client
    environment._connection._client._run(websocket._ws.close())
    assert environment.reset(5) == user("Guess, 0 to 9.")
    environment._connection._client._run(environment._connection._client.async_client._ws.close())
    with pytest.raises(Unavailable, match=r"server at http://127\.0\.0\.1"):
        said(environment, "9")
    assert environment.reset(5) == user("Guess, 0 to 9.")


def test_an_environment_that_fails_is_an_error_with_its_message(make: Any) -> None:
    environment = make(action=ACTION)
    with pytest.raises(InvalidInput, match="thirteen is not played"):
        environment.reset(13)
    with pytest.raises(InvalidInput, match="done after its reset"):
        environment.reset(14)
    assert environment.reset(5)


def test_a_server_that_is_not_there_is_unavailable(make: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        environment = make(
            base_url=f"http://127.0.0.1:{taken.getsockname()[1]}", action=ACTION, connect_timeout=5
        )
        with pytest.raises(Unavailable, match="Failed to connect"):
            environment.reset(0)


def test_too_few_sessions_are_reported_with_what_to_do(make: Any, busy_server: str) -> None:
    one, two = (make(base_url=busy_server, action=ACTION) for _ in range(2))
    one.reset(5)
    with pytest.raises(Unavailable, match="raise its max_concurrent_envs"):
        two.reset(5)


def test_a_template_that_does_not_fit_names_the_fields(make: Any) -> None:
    environment = make(action=ACTION, observation="{promt}")
    with pytest.raises(InvalidInput, match=r"KeyError.*fields: prompt, guesses, heard"):
        environment.reset(5)


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say what to do with a completion"),
        ({"action": ACTION, "action_function": f"{CLIENT}:guess"}, "say what to do with a compl"),
        ({"action": {"number": 3}}, "action has no {completion}"),
        ({"action_function": f"{CLIENT}:gues"}, "did you mean"),
        ({"action_function": f"{CLIENT}:NUMBER"}, "is a int, not a function"),
        ({"action_function": "guess"}, 'write "module:name"'),
        ({"action": ACTION, "reset": {"seed": 3}}, "the seed is that of the problem"),
        ({"action": ACTION, "as_chat": False, "system_prompt": "x"}, "system_prompt is a message"),
        (
            {"action": ACTION, "observation": "{a}", "observation_function": f"{CLIENT}:show"},
            "both say what is asked",
        ),
    ],
)
def test_a_mistake_in_the_options_is_reported(options: dict[str, Any], message: str) -> None:
    environment = {"use": "openenv", "base_url": "http://127.0.0.1:1", **options}
    table = {"model": "m", "environment": environment}
    with (
        Kitchen(settings=in_code({"workflow": table})) as kitchen,
        pytest.raises(ConfigurationError) as caught,
    ):
        kitchen.configure(ProblemsConfig, table, ("workflow",))
    assert "workflow.environment" in str(caught.value)
    assert message in str(caught.value)


def test_the_library_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, crucible_environment_openenv.environment\n"
        "assert not {'openenv', 'websockets', 'gradio'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
