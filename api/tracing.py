"""OpenTelemetry traces: one span for each request and one for each stage of an answer below it (extra `otel`).

Attributes are routes, statuses, ids, counts and names of models: never a question, an answer, document text, a file name or a key.
Off unless the server setting `otlp_endpoint` names a collector, or a caller hands in a provider. A `traceparent` of the client is
continued, but for whether to sample, which is ours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rag import __version__
from rag.errors import ConfigError
from rag.types import Step

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

# Of what stages record: what is a count or the name of a model. The rest may quote documents.
_TOLD = ("mode", "candidates", "naive_tokens", "best_relevance", "threshold", "pairs", "selector", "limit_tokens", "filtered",
         "evaluations", "sufficiency", "tokens", "passages", "model", "finish", "prompt_tokens", "completion_tokens",
         "cached_tokens", "first_token_s", "support", "sentences", "error")
_NAME = "thriftrag"


class Tracing:
    """Where spans go. Without a provider every call does nothing."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None if provider is None else provider.get_tracer(_NAME, __version__)

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Span | None]:
        """Around one request; who ends it says how it ended with `ended`."""
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(dict(headers))
        # An exception is the edge's to tell: its message may quote what a caller sent.
        with self._tracer.start_as_current_span(method, context=parent, kind=SpanKind.SERVER, record_exception=False,
                                                set_status_on_exception=False) as span:
            yield span

    def stage(self, step: Step) -> None:
        """A finished stage, as a span below the current one that ends now."""
        if self._tracer is None:
            return
        ended = time.time_ns()
        span = self._tracer.start_span(f"stage {step.stage}", start_time=ended - int(step.seconds * 1e9))
        for name in _TOLD:
            value = step.facts.get(name)
            if isinstance(value, str | int | float):
                span.set_attribute(f"thriftrag.{name}", value)
        span.end(ended)

    def close(self) -> None:
        """Sends what has not been sent."""
        shut = getattr(self._provider, "shutdown", None)
        if shut is not None:
            shut()


def ended(span: Span | None, *, method: str, route: str, status: int, request_id: str, key: str | None) -> None:
    """What is known of a request once it has ended."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status,
                         "thriftrag.request_id": request_id, **({} if key is None else {"thriftrag.key": key})})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def opened(endpoint: str) -> Tracing:
    """To a collector that takes OTLP over HTTP; an empty `endpoint` traces nothing.

    Raises:
        ConfigError: the extra is not installed.
    """
    if not endpoint:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ConfigError(f"Traces need the package {error.name!r}, which is not installed.", field="otlp_endpoint",
                          code="extra_missing", hint="Run: pip install 'thriftrag[otel]', or leave it empty.") from error
    provider = TracerProvider(resource=Resource.create({"service.name": _NAME, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)
