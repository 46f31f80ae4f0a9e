"""Events as OpenTelemetry spans and metrics. Needs the extra `otel`.

The call of a completion has the attributes of the semantic conventions for generative AI clients,
v1.41.0, the last version published with the other conventions; they are in development. Their names
are written out below, because the constants in `opentelemetry-semantic-conventions` are deprecated:
the conventions have moved to a repository that has not published a package yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self, TypeAlias

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import Histogram, Meter, MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from ..errors import ConfigurationError
from ..events import Event, without_texts
from ..version import __version__

SECONDS = [10.0**power * factor for power in range(-5, 4) for factor in (1, 3)]
"""Bounds of the buckets of our own durations, in seconds: from microseconds to hours."""

OPERATION_SECONDS = [0.01 * 2**power for power in range(14)]
OPERATION_TOKENS = [4**power for power in range(14)]
"""Bounds that the conventions prescribe, in seconds and tokens."""

Attributes: TypeAlias = dict[str, AttributeValue]


class OpenTelemetry:
    """Exports each span, and its duration as a metric.

    While an adapter works, its span is OpenTelemetry's current one, so that the spans of
    instrumented libraries (HTTP requests, SQL) are within it.

    Args:
        tracer_provider: where spans go; None is the global provider.
        meter_provider: where metrics go; None is the global provider.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("crucible_kitchen", __version__, tracer_provider)
        self._spans: dict[int, Span] = {}
        meter = metrics.get_meter("crucible_kitchen", __version__, meter_provider)
        self._durations = {
            name: _seconds(meter, f"crucible.{name}.duration", f"Duration of {what}.", SECONDS)
            for name, what in (
                ("adapter.call", "calls to adapters"),
                ("adapter.around", "calls through wrappers, that of the inner adapter included"),
                ("training.step", "training steps, from submission to result"),
                ("training.eval", "evaluations"),
                ("training.checkpoint", "checkpoints"),
            )
        }
        self._operations = _seconds(
            meter,
            "gen_ai.client.operation.duration",
            "GenAI operation duration.",
            OPERATION_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=OPERATION_TOKENS,
        )

    @classmethod
    def from_environment(cls) -> Self:
        """Make one on the global providers; if none are set, set them as `OTEL_*` variables say.

        Those providers export what is left when the process ends.

        Raises:
            ConfigurationError: the variables ask for something that only
                `opentelemetry-instrument` sets up.
        """
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            _set_providers()
        return cls()

    def __repr__(self) -> str:
        return "otel"

    # --- spans ---

    def begin(self, event: Event) -> None:
        assert event.span is not None
        parent = self._spans.get(event.parent or 0)
        self._spans[event.span] = self._tracer.start_span(
            _name(event),
            # Without a parent of ours, its parent may be a span of the program itself.
            context=None if parent is None else trace.set_span_in_context(parent),
            kind=SpanKind.CLIENT if _is_completion(event) else SpanKind.INTERNAL,
            attributes=_attributes(event),
            start_time=_nanoseconds(event.time),
        )

    def enter(self, span: int) -> Callable[[], None]:
        working = self._spans.get(span)
        if working is None:
            return lambda: None
        return partial(context.detach, context.attach(trace.set_span_in_context(working)))

    def __call__(self, event: Event) -> None:
        if event.span is None:
            self._point(event)
            return
        seconds, error = event.attributes["duration_s"], event.attributes["error"]
        if event.span not in self._spans:  # it began before this observer was added
            began = event.time - seconds
            self.begin(Event(event.name, event.attributes, began, event.span, event.parent))
        span = self._spans.pop(event.span)
        span.set_attributes(_attributes(event))
        if error:
            span.set_status(StatusCode.ERROR)
        span.end(_nanoseconds(event.time))
        self._measure(event, seconds, trace.set_span_in_context(span))

    def _point(self, event: Event) -> None:
        """Add an event without a duration to the span in which it happened."""
        attributes, at = _attributes(event), _nanoseconds(event.time)
        parent = self._spans.get(event.parent or 0)
        if parent is None:
            self._tracer.start_span(event.name, attributes=attributes, start_time=at).end(at)
            return
        parent.add_event(event.name, attributes, at)
        if event.name == "workflow.start":
            parent.set_attributes(attributes)

    # --- metrics ---

    def _measure(self, event: Event, seconds: float, within: context.Context) -> None:
        about = event.attributes
        if durations := self._durations.get(event.name):
            kept = {
                f"crucible.{k}": about[k] for k in ("port", "adapter", "callback") if k in about
            }
            durations.record(seconds, kept | _error(event), within)
        if not _is_completion(event):
            return
        named = {k: v for k, v in _request(about).items() if k in NAMING}
        if about["callback"] != "complete_batch":  # its duration is that of many operations
            self._operations.record(seconds, named | _error(event), within)
        for kind, count in (("input", "prompt_tokens"), ("output", "completion_tokens")):
            if count in about:
                self._tokens.record(about[count], named | {"gen_ai.token.type": kind}, within)


# --- the global providers ---

OTLP = "otlp"


def _set_providers() -> None:
    from opentelemetry.sdk.metrics import MeterProvider as MetricsSdk
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        MetricExporter,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as TracesSdk
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SpanExporter,
    )

    def otlp_spans() -> SpanExporter:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()

    def otlp_metrics() -> MetricExporter:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter()

    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    spans = _chosen("OTEL_TRACES_EXPORTER", {OTLP: otlp_spans, "console": ConsoleSpanExporter})
    numbers = _chosen(
        "OTEL_METRICS_EXPORTER", {OTLP: otlp_metrics, "console": ConsoleMetricExporter}
    )
    if protocol != "http/protobuf":
        raise ConfigurationError(_needs_instrument("OTEL_EXPORTER_OTLP_PROTOCOL", protocol))
    named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    unnamed = not (named or os.environ.get("OTEL_SERVICE_NAME"))
    resource = Resource.create({"service.name": "crucible"} if unnamed else {})
    tracing = TracesSdk(resource=resource)
    if spans is not None:
        tracing.add_span_processor(BatchSpanProcessor(spans()))
    readers = [] if numbers is None else [PeriodicExportingMetricReader(numbers())]
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(MetricsSdk(readers, resource=resource))


def _chosen(variable: str, exporters: Mapping[str, Callable[[], Any]]) -> Callable[[], Any] | None:
    name = os.environ.get(variable) or OTLP
    if name == "none":
        return None
    if name not in exporters:
        raise ConfigurationError(_needs_instrument(variable, name))
    return exporters[name]


def _needs_instrument(variable: str, value: str) -> str:
    return (
        f"observe.otel: {variable}={value} is more than Crucible Kitchen sets up by itself; "
        "start it as `opentelemetry-instrument crucible run ...`, from opentelemetry-distro"
    )


# --- names and attributes ---

NAMING = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")

REQUEST = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "stream": "gen_ai.request.stream",
}
UNSAID = {"top_k": -1, "n": 1}
"""Values for which the conventions leave an attribute out."""

RESPONSE = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
}


def _is_completion(event: Event) -> bool:
    about = event.attributes
    return event.name == "adapter.call" and about["port"] == "completer" and "prompt_kind" in about


def _name(event: Event) -> str:
    about = event.attributes
    if _is_completion(event):
        return " ".join(str(v) for k, v in _request(about).items() if k in (NAMING[0], NAMING[2]))
    match event.name:
        case "adapter.call":
            return f"{about['port']}.{about['callback']}"
        case "adapter.around":
            return f"{about['adapter']} around {about['port']}.{about['callback']}"
        case "workflow.run":
            return f"workflow {about['workflow']}"
    return event.name


def _attributes(event: Event) -> Attributes:
    about = dict(without_texts(event).attributes)
    made: Attributes = {}
    if _is_completion(event):
        made |= _request(about)
        made |= {to: about[name] for name, to in RESPONSE.items() if name in about}
        reasons = about.get("finish_reasons", {})
        if sum(reasons.values()) == 1:
            made["gen_ai.response.finish_reasons"] = [*reasons]
            del about["finish_reasons"]
        for name in ("model", "prompt_kind", *REQUEST, *RESPONSE):
            about.pop(name, None)
    for name in ("duration_s", "error"):
        about.pop(name, None)
    return made | dict(_flat("crucible", about)) | _error(event)


def _request(about: Mapping[str, Any]) -> Attributes:
    operation = "chat" if about["prompt_kind"] == "messages" else "text_completion"
    made: Attributes = {NAMING[0]: operation, NAMING[1]: about["adapter"]}
    if about.get("model"):
        made[NAMING[2]] = about["model"]
    for name, to in REQUEST.items():
        if (value := about.get(name)) is not None and value != UNSAID.get(name):
            made[to] = value
    return made


def _error(event: Event) -> Attributes:
    error = event.attributes.get("error")
    return {"error.type": str(error)} if error else {}


def _flat(name: str, value: Any) -> Iterator[tuple[str, AttributeValue]]:
    """Yield values of types that OpenTelemetry knows: a name for each number and text."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    elif isinstance(value, bool | int | float | str):
        yield name, value
    elif callable(plain := getattr(value, "item", None)):  # a NumPy scalar
        yield from _flat(name, plain())


def _seconds(meter: Meter, name: str, description: str, bounds: list[float]) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=bounds
    )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
