"""A real OpenEnv server on this machine, and an environment that it hosts."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of the guessing game, with 200 sessions."""
    with Server(200) as url:
        yield url


@pytest.fixture
def busy_server() -> Iterator[str]:
    """The address of a server with one session."""
    with Server(1) as url:
        yield url


class Server:
    """Serves the guessing game in a thread, on a free port."""

    def __init__(self, sessions: int) -> None:
        import uvicorn
        from openenv.core.env_server import create_fastapi_app

        action, observation, environment = game()
        app = create_fastapi_app(environment, action, observation, max_concurrent_envs=sessions)
        config = uvicorn.Config(app, log_level="critical", ws="websockets-sansio")
        self._server = uvicorn.Server(config)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> str:
        self._socket.listen(128)  # so that a client waits until the server has started
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()


def game() -> tuple[Any, Any, Any]:
    """Return the classes of the game's actions, observations and environment."""
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Guess(Action):  # type: ignore[misc]
        number: int
        how: str = ""

    class Answer(Observation):  # type: ignore[misc]
        prompt: str
        guesses: int = 0
        heard: str = "nothing"

    class Game(Environment):  # type: ignore[misc]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(
            self, seed: int | None = None, episode_id: str | None = None, highest: int = 9, **_: Any
        ) -> Any:
            if seed == 13:
                raise RuntimeError("thirteen is not played")
            self.number = random.Random(seed).randint(0, highest)
            self.guesses = 0
            return Answer(prompt=f"Guess, 0 to {highest}.", done=seed == 14)

        def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> Any:
            self.guesses += 1
            right = action.number == self.number
            word = "larger" if self.number > action.number else "smaller"
            return Answer(
                prompt="Right." if right else f"It is {word}.",
                guesses=self.guesses,
                heard=action.how,
                reward=1.0 if right else None,
                done=right or self.guesses == 4,
            )

        @property
        def state(self) -> State:
            return State(step_count=self.guesses)

    return Guess, Answer, Game
