"""A session on an OpenEnv server, and what its failures mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crucible_kitchen import AdapterTimeout, InvalidInput, Unavailable

if TYPE_CHECKING:
    from openenv.core.client_types import StepResult
    from openenv.core.sync_client import SyncEnvClient


SESSIONS = "; if it has too few sessions, raise its max_concurrent_envs to the episodes of a step"


class Refused(Exception):
    """The server takes no such action."""


class Connection:
    """A client with a session of its own on the server, opened when it is first used.

    Args:
        make: makes the client.
        url: the server's, for messages.
    """

    def __init__(self, make: Callable[[], Any], url: str) -> None:
        self._make, self._url = make, url
        self._client: SyncEnvClient[Any, Any, Any] | None = None

    def reset(self, **arguments: Any) -> StepResult[Any]:
        """Begin an episode.

        Raises:
            Unavailable: the server cannot be reached, or has no session to spare.
            AdapterTimeout: it does not answer.
            InvalidInput: the environment failed.
        """
        if self._client is not None:
            try:
                return self._asked(lambda client: client.reset(**arguments))
            except Unavailable:  # a server ends sessions that are idle; the episode begins here
                pass
        return self._asked(lambda client: client.reset(**arguments))

    def step(self, action: Any) -> StepResult[Any]:
        """Go on with an action.

        Raises:
            Refused: the server takes no such action.
        """
        return self._asked(lambda client: client.step(action))

    def close(self) -> None:
        """End the session, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _asked(self, ask: Callable[[Any], StepResult[Any]]) -> StepResult[Any]:
        from websockets.exceptions import WebSocketException

        try:
            if self._client is None:
                self._client = self._make().sync()
            return ask(self._client)
        except TimeoutError as error:
            self._forget()
            raise AdapterTimeout(f"the OpenEnv server at {self._url} did not answer") from error
        except OSError as error:
            self._forget()
            raise Unavailable(f"the OpenEnv server at {self._url}: {error}") from error
        except WebSocketException as error:
            # One without a session to spare says so and hangs up, mostly before it is asked.
            self._forget()
            raise Unavailable(
                f"the OpenEnv server at {self._url} ended the session: {error}{SESSIONS}"
            ) from error
        except RuntimeError as error:  # an error that the server has answered
            code = re.search(r"\(code: (\w+)\)$", str(error))
            if code and code[1] == "VALIDATION_ERROR":
                raise Refused(str(error)) from error
            if code and code[1] == "CAPACITY_REACHED":
                self._forget()
                raise Unavailable(
                    f"the OpenEnv server at {self._url}: {error}{SESSIONS}"
                ) from error
            raise InvalidInput(f"the OpenEnv server at {self._url}: {error}") from error

    def _forget(self) -> None:
        """Close a client whose connection is in an unknown state; the next call makes another."""
        try:
            self.close()
        except Exception:  # it is broken already
            self._client = None
