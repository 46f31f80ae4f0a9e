"""What runs in the other process: functions, each in a thread of its own."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from multiprocessing.connection import Connection

from .travelling import packed, unpacked


def serve(connection: Connection) -> None:
    """Run what is asked for until the other end asks for the end, or is gone.

    Each question is its number in eight bytes and a packed `(function, arguments, last)`; each
    answer the same number and `(result, error, traceback)`.
    """
    os.set_inheritable(connection.fileno(), False)
    lock = threading.Lock()

    def answer(question: bytes) -> None:
        message, last = _answered(question[8:])
        with lock:
            connection.send_bytes(question[:8] + message)
            if last:  # before any other thread can finish what it has begun
                os.kill(os.getpid(), signal.SIGKILL)

    while question := _received(connection):
        threading.Thread(target=answer, args=[question], daemon=True).start()


def _received(connection: Connection) -> bytes:
    """Return the next question; nothing if there will be none."""
    try:
        return connection.recv_bytes()
    except (EOFError, OSError):
        return b""


def _answered(question: bytes) -> tuple[bytes, bool]:
    """Return the answer, and whether it is the last."""
    last = False
    try:
        function, arguments, last = unpacked(question)
        return packed((function(*arguments), None, "")), last
    except BaseException as error:
        text = traceback.format_exc()
        try:
            unpacked(message := packed((None, error, text)))
        except Exception:  # an error that does not survive its own pickle
            return packed((None, RuntimeError(repr(error)), text)), last
        return message, last
