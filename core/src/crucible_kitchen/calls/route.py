"""The route of a call: what a bound adapter does for one callback, put together once, at binding.

A call looks up nothing that was known before it: which function serves it, which arguments that
takes, what the result must be. What is left is the function, the check of its result, the
translation of its errors and, if there are observers, a span.

pluggy has registered and verified the function. It is called directly, since a port has one
implementation of a callback, and calling that through its hook takes longer than all the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from ..errors import AdapterError, Unsupported
from ..events import Span
from ..events.calls import CallSpans
from ..hookspecs import CallbackTraits
from .call import Bound, Call, Route
from .streams import Stream
from .translation import Translation


@dataclass(frozen=True, slots=True)
class Implementation:
    """An adapter's own function for a callback.

    Args:
        function: it, with the options bound.
        takes: the arguments that it takes, in its order.
        left_out: those that it leaves out, with the defaults at which leaving them out changes
            nothing.
    """

    function: Callable[..., Any]
    takes: tuple[str, ...]
    left_out: Mapping[str, Any]


def route(
    port: Bound,
    callback: str,
    implementation: Implementation,
    inner: Route | None,
    traits: CallbackTraits,
    spans: CallSpans,
    errors: Translation,
) -> Route:
    """Put together the route of a callback that an adapter serves or wraps.

    Args:
        port: the bound adapter.
        callback: the callback's name.
        implementation: the adapter's function for it; of a wrapper, its `around`.
        inner: where a wrapper passes the call on to; None if the adapter serves it.
        traits: what the contract says about the callback.
        spans: the spans of its calls.
        errors: translates what the adapter raises.
    """
    function, takes = implementation.function, implementation.takes
    only = takes[0] if len(takes) == 1 else None
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = (
        itemgetter(*takes) if len(takes) > 1 else lambda arguments: ()
    )
    right, check = traits.result.right, traits.result
    counted = traits.errors or traits.count is not None
    streams = traits.stream
    listening = spans.listening

    # Written out, and not in parts, since each part would cost a call again.
    def run(
        arguments: Mapping[str, Any], outer: Call | None = None, span: Span | None = None
    ) -> Any:
        if listening and span is None:
            return spans.around(run, arguments, outer)
        try:
            if inner is not None:
                result = function(Call(port, inner, callback, arguments, outer, span))
            elif only is not None:
                result = function(arguments[only])
            else:
                result = function(*values(arguments))
            if counted:
                result = _items(result, arguments, callback, traits, errors)
            elif type(result) not in right:
                check(result)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or one of a library's own
            errors.fail(error, callback)
        return _stream(result, callback, traits, spans, errors, span) if streams else result

    if implementation.left_out and inner is None:
        return _refusing(implementation.left_out, run, callback, errors)
    return run


def unsupported(callback: str, errors: Translation) -> Route:
    """Return the route of a callback that neither the adapter nor one that it wraps implements."""

    def refuse(arguments: Mapping[str, Any], outer: Call | None = None) -> Any:
        raise errors.explain(Unsupported(f"does not implement {callback}"), callback)

    return refuse


def _refusing(left_out: Mapping[str, Any], run: Route, callback: str, errors: Translation) -> Route:
    """Return a route that refuses what the implementation does not take."""

    def refuse(arguments: Mapping[str, Any], outer: Call | None = None) -> Any:
        for name, default in left_out.items():
            value = arguments[name]
            if value is not default and not _equals(value, default):
                raise errors.explain(Unsupported(f"takes no {name!r}"), callback)
        return run(arguments, outer)

    return refuse


def _equals(value: Any, default: Any) -> bool:
    """Say whether a value equals its default. An array never does: `==` of it is an array."""
    equal = value == default
    return isinstance(equal, bool | np.bool_) and bool(equal)


def _items(
    result: Any,
    arguments: Mapping[str, Any],
    callback: str,
    traits: CallbackTraits,
    errors: Translation,
) -> Any:
    """Return a result of several items, checked, with the errors among them translated."""
    if traits.errors and isinstance(result, list):  # where it was served: wrappers see them
        result = [errors.item(item, callback) for item in result]
    traits.result(result)
    if traits.count is not None and len(result) != (count := traits.count(arguments)):
        raise AdapterError(f"must return {count} results, not {len(result)}")
    return result


def _stream(
    result: Any,
    callback: str,
    traits: CallbackTraits,
    spans: CallSpans,
    errors: Translation,
    span: Span | None,
) -> Stream[Any]:
    translate = functools.partial(errors.translate, callback=callback)
    if span is None:
        return Stream(result, translate, check=traits.item)
    return Stream(result, translate, span.end, spans.item_observer(span), traits.item)
