"""A PostgreSQL server for one program alone, on 127.0.0.1, its data in a temporary folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Missing(Exception):
    """PostgreSQL's programs are not installed."""


class Server:
    """A running server.

    Args:
        programs: the folder of `initdb` and `pg_ctl`.
        folder: an empty one for its data.
        durable: whether a commit waits for the disk.
    """

    def __init__(self, programs: Path, folder: Path, durable: bool) -> None:
        self._programs = programs
        self._folder = folder
        self._durable = durable
        self.password = secrets.token_hex(8)
        if os.geteuid() == 0:  # as whom it refuses to run
            shutil.chown(folder, "postgres", "postgres")
        (folder / "password").write_text(self.password)
        self._run(
            "initdb",
            "--username=crucible",
            f"--pwfile={folder / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        for _ in range(5):  # another program may be quicker to take the port
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            try:
                self.start()
                return
            except subprocess.CalledProcessError as error:
                failed = error
        raise failed

    @property
    def url(self) -> str:
        return f"postgresql://crucible:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Return when it answers."""
        options = (
            f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
            f" -c fsync={'on' if self._durable else 'off'}"
        )
        self._run("pg_ctl", "start", "--wait", "-l", f"{self._folder / 'log'}", "-o", options)

    def stop(self) -> None:
        """Cut every connection; nothing that was committed is lost."""
        self._run("pg_ctl", "stop", "--mode=immediate")

    def _run(self, program: str, *arguments: str) -> None:
        data = self._folder / "data"
        command = [str(self._programs / program), f"--pgdata={data}", *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # Not captured by a pipe, which the server would inherit and keep open.
        with (self._folder / "output").open("wb") as output:
            subprocess.run(command, check=True, stdout=output, stderr=output, cwd=self._folder)


@contextmanager
def started(*, durable: bool) -> Iterator[Server]:
    """Run a server within the block.

    Raises:
        Missing: there is no PostgreSQL on this machine.
    """
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).parent)
    programs = next((folder for folder in folders if (folder / "initdb").exists()), None)
    if programs is None:
        raise Missing("PostgreSQL's programs are missing; on Debian: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="crucible-postgresql-") as folder:
        server = Server(programs, Path(folder), durable)
        try:
            yield server
        finally:
            server.stop()
