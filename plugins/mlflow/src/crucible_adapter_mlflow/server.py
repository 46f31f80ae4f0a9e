"""MLflow's REST API: one request and its answer, or its error in our terms.

The API is used as such, and not through MLflow's own client (3.17): that one needs 4 minutes to say
that a connection was refused, takes its timeout and retries from environment variables of the whole
process, hides `Retry-After`, and brings twenty packages and an import of 3 s.
"""

from __future__ import annotations

from typing import Any

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
    connection; everything that is asked for here may be asked for twice. There are no other
    retries.
    """

    def __init__(
        self, address: str, timeout: float, basic: tuple[str, str] | None, token: str | None
    ) -> None:
        self.address = address.rstrip("/")
        self._client = httpx2.Client(
            base_url=f"{self.address}/api/2.0/mlflow/",
            timeout=timeout,
            auth=basic,
            headers={"Authorization": f"Bearer {token}"} if token and not basic else None,
        )

    def get(self, path: str, *, timeout: float | None = None, **params: Any) -> dict[str, Any]:
        return self._answer("GET", path, params=params, **_limit(timeout))

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._answer("POST", path, json=body)

    def close(self) -> None:
        self._client.close()

    def _answer(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            try:
                response = self._client.request(method, path, **request)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                response = self._client.request(method, path, **request)
        except httpx2.TimeoutException as error:
            raise AdapterTimeout(
                f"no answer from the MLflow server at {self.address} to {path} in time"
            ) from error
        except httpx2.TransportError as error:
            raise Unavailable(
                f"cannot reach the MLflow server at {self.address}: {error}; does it run?",
                no_effect=isinstance(error, httpx2.ConnectError),
            ) from error
        answer = _json(response)
        if response.is_success and answer is not None:
            return answer
        raise _refusal(response, answer, f"the MLflow server at {self.address}, asked for {path},")


def _limit(timeout: float | None) -> dict[str, float]:
    return {} if timeout is None else {"timeout": timeout}


def _json(response: httpx2.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _refusal(response: httpx2.Response, answer: dict[str, Any] | None, where: str) -> AdapterError:
    """Return the error that an answer stands for."""
    status, fields = response.status_code, answer or {}
    code = fields.get("error_code")
    text = str(fields.get("message") or response.reason_phrase)[:500]
    said = f"{where} said {status}: {text}"
    if status in (401, 403):
        return Unauthorized(f"{said}; check `token`, or `username` and `password`")
    if status == 429:
        return RateLimited(said, retry_after=_seconds(response.headers.get("Retry-After")))
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
        f"{said}, which is no answer of MLflow; check `tracking_uri`",
        retryable=False,
        no_effect=True,
    )


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:  # a date; the caller's own delay will do
        return None
