"""Compare a batch through the adapter with a loop over the OpenAI SDK, written by hand.

    python benchmarks/compare_with_sdk_loop.py --base-url http://127.0.0.1:8000/v1 --model small

Without `--base-url` a server of its own, in another process, answers each request after
`--latency` seconds, so that the client's own cost shows. The ways take turns, so that whatever else
the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import crucible_adapter_openai.completer as openai_adapter
import openai
from crucible_kitchen import Completion, Kitchen, SamplingParams
from rich.console import Console
from rich.table import Table

MESSAGES: Any = [{"role": "user", "content": "Say something short."}]


def through_the_adapter(
    args: argparse.Namespace, in_flight: int, stack: ExitStack
) -> Callable[[], object]:
    options = {"use": openai_adapter, "base_url": args.base_url, "model": args.model}
    kitchen = Kitchen(adapters={"completer": {**options, "max_concurrency": in_flight}})
    stack.callback(kitchen.close)
    params = SamplingParams(max_tokens=args.max_tokens)

    def run() -> None:
        results = kitchen.completer.complete_batch([MESSAGES] * args.requests, params)
        assert all(isinstance(result, Completion) for result in results), results

    return run


def by_threads(args: argparse.Namespace, in_flight: int, stack: ExitStack) -> Callable[[], object]:
    client = openai.OpenAI(base_url=args.base_url, api_key="EMPTY", max_retries=0)
    stack.callback(client.close)

    def one(_: int) -> str | None:
        answer = client.chat.completions.create(
            model=args.model, messages=MESSAGES, max_tokens=args.max_tokens
        )
        return answer.choices[0].message.content

    def run() -> None:
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(one, range(args.requests)))

    return run


def by_asyncio(args: argparse.Namespace, in_flight: int, stack: ExitStack) -> Callable[[], object]:
    client = openai.AsyncOpenAI(
        base_url=args.base_url,
        api_key="EMPTY",
        max_retries=0,
        timeout=600,  # its own 5 s for a connection are too few for 256 of them on a busy machine
    )
    runner = asyncio.Runner()  # one event loop for all rounds, so that connections are kept
    stack.callback(lambda: runner.run(client.close()))

    async def every() -> None:
        turn = asyncio.Semaphore(in_flight)

        async def one() -> str | None:
            async with turn:
                answer = await client.chat.completions.create(
                    model=args.model, messages=MESSAGES, max_tokens=args.max_tokens
                )
            return answer.choices[0].message.content

        await asyncio.gather(*(one() for _ in range(args.requests)))

    return lambda: runner.run(every())


def serve(latency: float) -> None:
    """Answer every request alike, `latency` seconds later; print the address first."""
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "small",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Something short."},
            }
        ],
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
                await asyncio.sleep(latency)
                writer.write(reply)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def own_server(latency: float) -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()


WAYS = {
    "the adapter": through_the_adapter,
    "SDK, threads": by_threads,
    "SDK, asyncio": by_asyncio,
}


def measure(args: argparse.Namespace) -> Table:
    table = Table("in flight", *(f"{name}, requests/s" for name in WAYS), "adapter / best")
    for in_flight in args.in_flight:
        rates: dict[str, list[float]] = {name: [] for name in WAYS}
        with ExitStack() as stack:
            runs = {name: way(args, in_flight, stack) for name, way in WAYS.items()}
            for round_ in range(args.rounds + 1):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run()
                    if round_:  # the first one warms up
                        rates[name].append(args.requests / (time.perf_counter() - start))
        medians = {name: statistics.median(each) for name, each in rates.items()}
        ours = medians["the adapter"]
        best = max(rate for name, rate in medians.items() if name != "the adapter")
        table.add_row(
            str(in_flight), *(f"{rate:.0f}" for rate in medians.values()), f"{ours / best:.2f}"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url")
    parser.add_argument("--model", default="small")
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.latency)
        return
    with ExitStack() as stack:
        args.base_url = args.base_url or stack.enter_context(own_server(args.latency))
        Console().print(measure(args))


if __name__ == "__main__":
    main()
