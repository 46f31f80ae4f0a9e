"""Which databases are served, and by which driver."""

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
        ValueError: it is no address, of a database that is not served, or of a file in a home
            folder that is nobody's. The message holds no part of the address but the name of the
            database system, or that folder's: the rest may be secret.
    """
    served = "write sqlite:///metrics.db or postgresql://user:password@host/database"
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ValueError(f"is no address of a database; {served}") from None
    if url.drivername not in _DRIVERS:
        raise ValueError(
            f"{url.drivername!r} is not served, only SQLite, and PostgreSQL by psycopg; {served}"
        )
    url = url.set(drivername=_DRIVERS[url.drivername])
    if url.drivername == "sqlite" and (url.database or "").startswith("~"):
        url = url.set(database=str(expand_home(str(url.database))))
    return url
