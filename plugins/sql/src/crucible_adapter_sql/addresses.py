"""The supported databases, and their drivers."""

from __future__ import annotations

from crucible_kitchen import expand_home
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


def parse(address: str) -> URL:
    """Return the address of a database with the driver that serves it.

    Raises:
        ValueError: it is not an address, its database is not supported, or its file is in the home
            folder of an unknown user. The message has no part of the address but the name of the
            database system, or of that folder: the rest may be secret.
    """
    served = "write sqlite:///metrics.db or postgresql://user:password@host/database"
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ValueError(f"is not an address of a database; {served}") from None
    if url.drivername not in _DRIVERS:
        raise ValueError(
            f"{url.drivername!r} is not supported; SQLite, and PostgreSQL by psycopg, are; {served}"
        )
    url = url.set(drivername=_DRIVERS[url.drivername])
    if url.drivername == "sqlite" and (url.database or "").startswith("~"):
        url = url.set(database=str(expand_home(str(url.database))))
    return url
