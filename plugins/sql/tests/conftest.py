"""A PostgreSQL server for these tests alone."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


class Server:
    """A PostgreSQL on 127.0.0.1, its data in a folder of its own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
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
            " -c fsync=off"  # these tests pull no plug
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


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).parent)
    programs = next((folder for folder in folders if (folder / "initdb").exists()), None)
    if programs is None:
        pytest.fail("these tests need PostgreSQL's programs; on Debian: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="crucible-postgresql-") as folder:
        started = Server(programs, Path(folder))
        yield started
        started.stop()
