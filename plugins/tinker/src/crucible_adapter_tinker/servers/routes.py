"""Requests for which the SDK has no method, or has one in some of its versions only."""

from __future__ import annotations

from typing import Any

import httpx
from crucible_kitchen import AdapterError, AdapterTimeout, NotFound, Unauthorized, Unavailable

from ..failures import cut


class Routes:
    """Plain requests to a server; see `options.ServerOptions` for the arguments."""

    def __init__(self, base_url: str, api_key: str, connect_timeout: float, timeout: float) -> None:
        self._base_url = base_url
        self._client = httpx.Client(
            headers={"X-API-Key": api_key} if api_key else {},
            timeout=httpx.Timeout(timeout, connect=connect_timeout),
        )
        self._quick = connect_timeout

    def check_reachable(self) -> None:
        """Check that a server of the API answers.

        Raises:
            Unavailable, AdapterTimeout: it does not.
            NotFound: something else does.
        """
        try:
            self.get("/api/v1/healthz", timeout=self._quick)
        except NotFound as error:
            raise NotFound(
                f"{error.reason}: is `base_url` the root of a server of Tinker's API?"
            ) from None

    def description(self) -> dict[str, Any]:
        """Return how the server describes itself, as OpenAPI; {} if it does not."""
        try:
            described = self.get("/openapi.json", timeout=self._quick)
        except AdapterError:
            return {}
        return described if isinstance(described, dict) else {}

    def get(self, route: str, *, timeout: float | None = None, **query: Any) -> Any:
        return self._ask("GET", route, timeout, params=query or None)

    def post(self, route: str, body: dict[str, Any]) -> Any:
        return self._ask("POST", f"/api/v1/{route}", None, json=body)

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, route: str, timeout: float | None, **rest: Any) -> Any:
        """Return the JSON of the answer.

        Raises:
            AdapterError: there is none, or it is not a success.
        """
        url = f"{self._base_url}{route}"
        failure: AdapterError
        try:
            response = self._client.request(
                method, url, timeout=timeout or httpx.USE_CLIENT_DEFAULT, **rest
            )
            if response.is_success:
                return response.json()
            failure = _of_status(url, response)
        except httpx.TimeoutException as error:
            failure = AdapterTimeout(f"{url} did not answer in time ({type(error).__name__})")
        except httpx.RequestError as error:
            failure = Unavailable(f"cannot reach {url}: {cut(str(error))}")
        except ValueError as error:
            failure = AdapterError(f"{url} did not answer with JSON: {cut(str(error))}")
        raise failure  # without the request, which holds the key


def _of_status(url: str, response: httpx.Response) -> AdapterError:
    status, said = response.status_code, f"{url} answered {response.status_code}"
    said = f"{said}: {cut(response.text)}" if response.text else said
    if status in (401, 403):
        return Unauthorized(f"{said}; is `api_key` right?")
    if status == 404:
        return NotFound(said)
    if status >= 500:
        return Unavailable(said)
    return AdapterError(said)
