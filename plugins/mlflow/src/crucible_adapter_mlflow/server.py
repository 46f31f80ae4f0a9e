"""MLflow's REST API: one request and its answer, or an error of the contract.

The API is used directly, and not through MLflow's own client (3.17), which needs 4 minutes to
report that a connection was refused, takes its timeout and retries from environment variables of
the whole process, hides `Retry-After`, and needs twenty packages and an import of 3 s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    AlreadyExists,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)


class Server:
    """A tracking server at an address, such as `http://127.0.0.1:5000`. Safe from any thread.

    A request that breaks off is sent once more, since the server may just have closed an idle
    connection; all requests here may be repeated. There are no other retries.

    Args:
        timeout: seconds to connect, and for a complete answer.
        most_bytes: largest answer, decompressed; MLflow does not send more.
    """

    def __init__(
        self,
        address: str,
        timeout: float,
        basic: tuple[str, str] | None,
        token: str | None,
        most_bytes: int = 2**27,
    ) -> None:
        self.address = address.rstrip("/")
        self._timeout = timeout
        self._most_bytes = most_bytes
        self._client = httpx2.Client(
            base_url=f"{self.address}/api/2.0/mlflow/",
            timeout=timeout,
            auth=basic,
            headers={"Authorization": f"Bearer {token}"} if token and not basic else None,
        )

    def get(self, path: str, *, timeout: float | None = None, **params: Any) -> dict[str, Any]:
        return self._answer("GET", path, timeout or self._timeout, params=params)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._answer("POST", path, self._timeout, json=body)

    def put_artifact(self, path: str, content: bytes) -> None:
        """Store a file, on a server that passes artifacts on."""
        address = f"{self.address}/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        self._answer("PUT", address, self._timeout, content=content, any_answer=True)

    @contextmanager
    def translated(self, path: str) -> Iterator[None]:
        """Translate exceptions of an answer in which something is missing or has a wrong type."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, AdapterError):
                raise
            raise Unavailable(
                f"the MLflow server at {self.address}, asked for {path}, did not answer as MLflow "
                f"({type(error).__name__}: {error}); check `tracking_uri`",
                retryable=False,
            ) from error

    def close(self) -> None:
        self._client.close()

    def _answer(
        self, method: str, path: str, timeout: float, *, any_answer: bool = False, **request: Any
    ) -> dict[str, Any]:
        try:
            try:
                response, content = self._ask(method, path, timeout, **request)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                response, content = self._ask(method, path, timeout, **request)
        except httpx2.TimeoutException as error:
            raise AdapterTimeout(
                f"no answer from the MLflow server at {self.address} to {path} in time"
            ) from error
        except httpx2.RequestError as error:  # a failed connection, or invalid gzip
            raise Unavailable(
                f"cannot reach the MLflow server at {self.address}: {error}; does it run?",
                no_effect=isinstance(error, httpx2.ConnectError),
            ) from error
        answer = _json(content)
        if response.is_success and (answer is not None or any_answer):
            return answer or {}
        raise _refusal(response, answer, f"the MLflow server at {self.address}, asked for {path},")

    def _ask(
        self, method: str, path: str, timeout: float, **request: Any
    ) -> tuple[httpx2.Response, bytes]:
        until = time.monotonic() + timeout
        content = bytearray()
        with self._client.stream(method, path, timeout=timeout, **request) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > self._most_bytes:
                    raise Unavailable(
                        f"the MLflow server at {self.address} answers {path} with more than "
                        f"{self._most_bytes} bytes (option max_answer_bytes)",
                        retryable=False,
                    )
                if time.monotonic() > until:  # the timeout of httpx is that of one piece
                    raise AdapterTimeout(
                        f"the MLflow server at {self.address} did not finish its answer to {path} "
                        f"within {timeout} s"
                    )
        return response, bytes(content)


def _json(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _refusal(response: httpx2.Response, answer: dict[str, Any] | None, where: str) -> AdapterError:
    """Return the error for an answer."""
    status, fields = response.status_code, answer or {}
    code = fields.get("error_code")
    text = str(fields.get("message") or response.reason_phrase)[:500]
    said = f"{where} said {status}: {text}"
    if status in (401, 403):
        return Unauthorized(f"{said}; check `token`, or `username` and `password`")
    if status == 429:
        return RateLimited(said, retry_after=RateLimited.retry_after_of(response.headers))
    if status in (408, 504):
        return AdapterTimeout(said)
    if status >= 500:
        return Unavailable(said)
    if code == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(said, no_effect=True)
    if code == "RESOURCE_ALREADY_EXISTS":
        return AlreadyExists(said, no_effect=True)
    if code is not None:
        return InvalidInput(said)
    return Unavailable(
        f"{said}, which is not an answer of MLflow; check `tracking_uri`",
        retryable=False,
        no_effect=True,
    )
