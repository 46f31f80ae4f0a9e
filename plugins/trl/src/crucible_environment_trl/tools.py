"""The public methods of an environment, which are the model's tools."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

NOT_TOOLS = ("reset", "get_reward")


def tools_of(environment: object) -> dict[str, Callable[..., Any]]:
    """Return the methods that TRL makes tools of: those of the class that have a public name."""
    return {
        name: getattr(environment, name)
        for name, _ in inspect.getmembers(type(environment), inspect.isfunction)
        if name not in NOT_TOOLS and not name.startswith("_")
    }


def schema_of(tool: Callable[..., Any]) -> Mapping[str, Any]:
    """Return a tool's JSON schema, as chat templates show it.

    Raises:
        DocstringParsingException, TypeHintParsingException: the method lacks a docstring or a type.
    """
    from transformers.utils import get_json_schema

    schema: Mapping[str, Any] = get_json_schema(tool)
    return schema


def call(
    tools: Mapping[str, Callable[..., Any]], calls: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """Call tools; return their messages in TRL's order, and how many calls failed.

    What a tool raises is an answer: a message {"error": ...}. The messages of coroutines follow
    those of functions, and they run at once.
    """
    results: list[tuple[str, Any]] = []
    waiting: list[tuple[str, Coroutine[Any, Any, Any]]] = []
    failed = 0
    for each in calls:
        function = each.get("function", each)
        name = function["name"]
        try:
            if each.get("type") != "function":
                raise ValueError(f"Unsupported tool call type: {each.get('type')}")
            if name not in tools:
                raise ValueError(f"Tool {name} not found.")
            result = tools[name](**function["arguments"])
        except Exception as error:
            failed += 1
            results.append((name, {"error": str(error)}))
            continue
        if inspect.iscoroutine(result):
            waiting.append((name, result))
        else:
            results.append((name, result))
    for (name, _), result in zip(waiting, wait([each for _, each in waiting]), strict=True):
        if isinstance(result, Exception):
            failed += 1
            result = {"error": str(result)}
        results.append((name, result))
    return [_message(name, result) for name, result in results], failed


def _message(name: str, result: Any) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": _content(result)}


def _content(result: Any) -> Any:
    return result if isinstance(result, list) else str(result)


def wait(coroutines: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines at once; return their results, or what they raised."""
    if not coroutines:
        return []

    async def gathered() -> list[Any]:
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run_coroutine_threadsafe(gathered(), _loop()).result()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own, so that it works where another one runs already, and
    an environment's connections stay on one loop.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="trl-environments", daemon=True).start()
    return loop
