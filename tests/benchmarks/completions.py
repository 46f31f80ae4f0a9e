"""A batch of requests to a server that takes 50 ms for each, against `AsyncOpenAI` and `gather`.

Of the SDK's transports (httpx, and aiohttp where it is installed) and numbers of requests in
flight, the fastest is the alternative. Ours has its default options.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from .comparison import Growth, Row, at_least, wall
from .settings import Settings, Skipped

LATENCY = 0.05
"""Seconds that the server takes for a request, however many others there are."""
TEXT = "Something short."
MESSAGES: Any = [{"role": "user", "content": "Say something short."}]
IN_FLIGHT = (16, 32, 64, 128)

Texts = list[str]
Ask = Callable[[int], Texts]
"""Sends so many requests; returns what was answered."""


def rows(settings: Settings) -> Iterator[Row]:
    count = 100 if settings.small else 1000
    with ExitStack() as stack:
        url = stack.enter_context(server())
        ours = through_the_adapter(url, stack)
        ways = {
            f"{transport}, {most} in flight": by_gather(url, transport, most, stack)
            for transport in transports()
            for most in (IN_FLIGHT[1:2] if settings.small else IN_FLIGHT)
        }
        best = min(ways, key=lambda name: _seconds(ways[name], count // 4))
        contest = settings.contest(clock="wall").run(
            ours=partial(ours, count), theirs=partial(ways[best], count)
        )
        for found in contest.results.values():
            assert found == [TEXT] * count, "another answer"
        yield contest.row(
            "ours",
            "theirs",
            what=f"completer batch, {count:,} requests of 50 ms",
            against=f"AsyncOpenAI with gather, {best}",
            goal=at_least(0.95),
            work=count,
            unit="requests/s",
        )


def growth(settings: Settings) -> Iterator[Growth]:
    count = 100 if settings.small else 500
    in_flight = (8, 16, 32, 64, 128)
    curves: dict[str, list[float]] = {"ours": []}
    with server() as url:
        for most in in_flight:
            with ExitStack() as stack:
                ways = {"ours": through_the_adapter(url, stack, max_concurrency=most)}
                for transport in transports():
                    ways[transport] = by_gather(url, transport, most, stack)
                for name, ask in ways.items():
                    seconds = sorted(_seconds(ask, count) for _ in range(settings.rounds))
                    curves.setdefault(name, []).append(count / seconds[len(seconds) // 2])
    yield Growth(
        f"Completer batch, {count:,} requests of 50 ms",
        "requests in flight",
        "requests/s",
        in_flight,
        {**curves},
    )


def _seconds(ask: Ask, count: int) -> float:
    ask(16)  # opens connections
    started = wall()
    ask(count)
    return wall() - started


def transports() -> list[str]:
    """Return those of the SDK that are installed."""
    from openai import DefaultAioHttpClient

    async def made() -> None:
        await DefaultAioHttpClient().aclose()

    try:
        asyncio.run(made())
    except RuntimeError:  # which says what to install
        return ["httpx"]
    return ["httpx", "aiohttp"]


def through_the_adapter(url: str, stack: ExitStack, **options: Any) -> Ask:
    try:
        from crucible_kitchen import Completion, Kitchen, SamplingParams
    except ImportError as error:
        raise Skipped(f"it needs crucible-kitchen: {error}") from error
    adapter = {"use": "openai", "base_url": url, "model": "small", **options}
    kitchen = stack.enter_context(Kitchen({"completer": adapter}))

    def ask(count: int) -> Texts:
        found = kitchen.completer.complete_batch([MESSAGES] * count, SamplingParams(max_tokens=8))
        return [each.text if isinstance(each, Completion) else str(each) for each in found]

    return ask


def by_gather(url: str, transport: str, in_flight: int, stack: ExitStack) -> Ask:
    import openai

    runner = asyncio.Runner()  # one event loop for all rounds, so that connections are kept
    stack.callback(runner.close)
    client_of = (
        openai.DefaultAioHttpClient if transport == "aiohttp" else openai.DefaultAsyncHttpxClient
    )

    async def made() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=url, api_key="EMPTY", max_retries=0, timeout=600, http_client=client_of()
        )

    client = runner.run(made())
    stack.callback(lambda: runner.run(client.close()))

    async def every(count: int) -> Texts:
        turn = asyncio.Semaphore(in_flight)

        async def one() -> str:
            async with turn:
                answer = await client.chat.completions.create(
                    model="small", messages=MESSAGES, max_tokens=8
                )
            return answer.choices[0].message.content or ""

        return await asyncio.gather(*(one() for _ in range(count)))

    return lambda count: runner.run(every(count))


@contextmanager
def server() -> Iterator[str]:
    """Run the server in a process of its own; yield its address."""
    command = [sys.executable, "-m", "benchmarks.completions"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


async def serve() -> None:
    """Answer every request alike, `LATENCY` later; print the address first."""
    message = {"role": "assistant", "content": TEXT}
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "small",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    }
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    reply = head.encode() + b"\r\n\r\n" + body

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = request.partition(b"content-length:")[2].partition(b"\r")[0]
                await reader.readexactly(int(length))
                await asyncio.sleep(LATENCY)
                writer.write(reply)
        writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
