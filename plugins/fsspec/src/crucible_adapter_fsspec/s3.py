"""Blobs in S3, with one request where s3fs makes several.

s3fs asks for the size of an object before it reads it, and again when it opens it; and a write in
pieces must not go through its files, since leaving `with fs.open(path, "wb")` by an exception
publishes what was written so far.
"""

from __future__ import annotations

import builtins
import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

from fsspec.asyn import sync

from .data import Data, pieces
from .remote import RemoteFolder

_PART = 5 << 20
"""Bytes of a part, the fewest that S3 accepts: four of them are in memory during an upload."""
_SMALL = 8 * _PART
"""Bytes from which content that is in memory is sent in parts, too: s3fs would copy all of it."""
_AT_ONCE = 3
"""Parts on their way at once."""
_GROW = 2500
"""Parts after which a part is four times as large: S3 takes 10,000, so a blob has 1 TB at most."""
_TRIES = 5
"""Attempts to go on with a stream whose connection was lost, without a byte in between."""
_CUT = "the answer ended after {} of {} bytes"


class S3Folder(RemoteFolder):
    """The blobs under a bucket, or under a prefix of one."""

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        if start != 0 or end is not None:
            return super().read(path, start, end)
        at = self._locate(path)
        with self._translated(path):
            found = self._get(at)
            size = found["ContentLength"]
            if size <= self._fs.default_block_size:
                with suppress(Exception), closing(found["Body"]) as body:
                    whole = bytes(sync(self._fs.loop, body.read))
                    if len(whole) == size:
                        return whole
            found["Body"].close()
            whole = bytes(self._fs.cat_file(at))  # several parts at once, and several attempts
            if len(whole) < size:
                raise ConnectionError(_CUT.format(len(whole), size))  # or it was replaced
            return whole

    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        at, done, failures = self._locate(path), 0, 0
        with self._translated(path):
            found = self._get(at)
        condition = {"IfMatch": found["ETag"]}
        try:
            while done < found["ContentLength"] or done == 0:
                with self._translated(path):
                    try:
                        chunk = sync(self._fs.loop, _filled, found["Body"], chunk_size)
                        if not chunk and done < found["ContentLength"]:
                            raise ConnectionError(_CUT.format(done, found["ContentLength"]))
                    except Exception:
                        failures += 1
                        if failures == _TRIES:
                            raise
                        chunk = None
                        found["Body"].close()
                        rest = self._get(at, Range=f"bytes={done}-", **condition)
                        found["Body"] = rest["Body"]
                if chunk is None:
                    continue
                if not chunk:  # an empty blob
                    return
                done, failures = done + len(chunk), 0
                yield chunk
        finally:
            found["Body"].close()

    def write(self, path: str, data: Data) -> None:
        at = self._locate(path)
        if isinstance(data, bytes) and len(data) < _SMALL:
            super().write(path, data)
            return
        parts = _parts(data)
        begun = [next(parts, b"")]  # a list, from which it is taken: nothing else may hold a part
        if len(begun[0]) < _PART:
            super().write(path, begun.pop())
        else:
            self._upload(path, at, begun, parts)

    def exists(self, path: str) -> bool:
        bucket, key, _ = self._fs.split_path(self._locate(path))
        with self._translated(path):
            try:
                self._fs.call_s3("head_object", Bucket=bucket, Key=key)
            except FileNotFoundError:
                return False
            return True

    def delete(self, path: str) -> None:
        at = self._locate(path)
        with self._translated(path), suppress(FileNotFoundError):  # of a missing bucket
            self._fs.rm_file(at)

    def _get(self, at: str, **how: str) -> dict[str, Any]:
        bucket, key, _ = self._fs.split_path(at)
        found: dict[str, Any] = self._fs.call_s3("get_object", Bucket=bucket, Key=key, **how)
        return found

    def _upload(
        self, path: str, at: str, begun: builtins.list[bytes], others: Iterator[bytes]
    ) -> None:
        """Upload parts; they become the blob together, or not at all."""
        bucket, key, _ = self._fs.split_path(at)
        place = {"Bucket": bucket, "Key": key}
        with self._translated(path, no_effect=True):
            place["UploadId"] = self._fs.call_s3("create_multipart_upload", **place)["UploadId"]
        tags: builtins.list[str] = []
        waiting: deque[Future[Any]] = deque()

        def wait() -> None:
            with self._translated(path, no_effect=True):
                tags.append(waiting.popleft().result()["ETag"])

        try:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="crucible-s3") as pool:

                def send(part: bytes) -> None:
                    if len(waiting) == _AT_ONCE:
                        wait()
                    waiting.append(
                        pool.submit(
                            self._fs.call_s3,
                            "upload_part",
                            PartNumber=len(tags) + len(waiting) + 1,
                            Body=io.BytesIO(part),  # of bytes, aiohttp would hold a copy
                            **place,
                        )
                    )

                send(begun.pop())
                for part in others:  # an error of the caller's iterator is not translated
                    send(part)
                    del part
                while waiting:
                    wait()
            with self._translated(path):
                whole = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
                self._fs.call_s3(
                    "complete_multipart_upload", MultipartUpload={"Parts": whole}, **place
                )
        except BaseException:
            with suppress(Exception):
                self._fs.call_s3("abort_multipart_upload", **place)
            raise


async def _filled(body: Any, size: int) -> bytes:
    """Read so many bytes of a body; fewer at its end."""
    read: list[bytes] = []
    while size and (piece := await body.read(size)):
        read.append(piece)
        size -= len(piece)
    return b"".join(read)


def _parts(data: Data) -> Iterator[bytes]:
    """Yield the data in parts, all but the last of the size that S3 demands."""
    number, held, size = 0, list[memoryview](), 0
    for piece in pieces(data):
        rest = memoryview(piece)
        while size + len(rest) >= (part := _PART * 4 ** (number // _GROW)):
            cut = part - size
            yield b"".join([*held, rest[:cut]])
            number, held, size, rest = number + 1, [], 0, rest[cut:]
        if rest:
            held.append(rest)
            size += len(rest)
    if size:
        yield b"".join(held)
