"""The server at an address: which kind it is, and a client for it."""

from __future__ import annotations

from typing import Any

from crucible_kitchen import AdapterError, Unsupported

from ..failures import versions
from ..options import Kind, ServerOptions
from .routes import Routes
from .server import Server
from .skyrl import SkyrlServer

_TITLES: dict[str, Kind] = {"Tinker API Mock": "skyrl", "TuFT": "tuft"}
"""What servers call themselves in /openapi.json."""


def connect(opts: ServerOptions) -> Server:
    """Return the server of these options.

    Raises:
        Unavailable, AdapterTimeout, NotFound: it does not answer.
        Unauthorized: there is no key.
        Unsupported: it does not understand the SDK that is installed.
    """
    key = opts.api_key.get_secret_value() if opts.api_key is not None else ""
    routes = Routes(opts.base_url, key, opts.connect_timeout, opts.timeout)
    try:
        routes.check_reachable()
    except AdapterError as error:
        error.add_note(
            "the option `base_url` says where the server is"
            + ("" if key else ", and neither `api_key` nor TINKER_API_KEY has a key for it")
        )
        raise
    described = routes.description()
    title = _at(described, "info", "title")
    kind: Kind = _TITLES.get(str(title), "tinker") if opts.server == "auto" else opts.server
    if kind != "skyrl":
        return Server(opts, routes, kind)
    if not sends_json() and not _reads_protobuf(described):
        # It would answer each batch with 500, and the SDK would repeat it for five minutes.
        raise Unsupported(
            f"this SkyRL server reads batches as JSON, and the SDK sends protobuf: {versions()}; "
            "pip install 'tinker<0.25'"
        )
    return SkyrlServer(opts, routes, kind)


def sends_json() -> bool:
    """Say whether the SDK sends batches as JSON unless the server wants protobuf, as older ones do.

    They let the server choose, which newer ones do not.
    """
    from tinker.types import ClientConfigResponse

    return "proto_write_fwdbwd" in ClientConfigResponse.model_fields


def _reads_protobuf(described: dict[str, Any]) -> bool:
    route = ("paths", "/api/v1/forward_backward", "post", "requestBody", "content")
    return "application/x-protobuf" in (_at(described, *route) or {})


def _at(described: Any, *path: str) -> Any:
    """Return what is at this path of a description; None if there is nothing."""
    for part in path:
        described = described.get(part) if isinstance(described, dict) else None
    return described
