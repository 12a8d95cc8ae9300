"""Traces: a span for each request, a span for each stage below it, and nothing in them that a person wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.settings import ServerSettings
from api.tracing import Tracing, opened
from rag.errors import ConfigError
from tests.api_fakes import QUESTION, live, wait_until

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="extra otel")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_request_and_its_stages_are_spans_without_text(tmp_path: Path) -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with live(tmp_path, traces=Tracing(provider)) as served:
        answer = served.client().post("/v1/ask", json={"question": QUESTION}, headers={
            "traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}).json()
        served.client().get("/nothing/here/Rotterdam")
        wait_until(lambda: any(span.name == "GET none" for span in exporter.get_finished_spans()))
    spans = exporter.get_finished_spans()
    [root] = [span for span in spans if span.name == "POST /v1/ask"]
    assert (root.context.trace_id, root.parent.span_id) == (int(TRACE, 16), int(PARENT, 16))
    assert dict(root.attributes) == {"http.request.method": "POST", "http.route": "/v1/ask", "http.response.status_code": 200,
                                     "thriftrag.request_id": "mine", "thriftrag.key": "local"}
    stages = [span for span in spans if span.parent is not None and span.parent.span_id == root.context.span_id]
    assert [span.name for span in stages] == [f"stage {step['stage']}" for step in answer["trace"]]
    generated = next(span for span in stages if span.name == "stage generate")
    assert generated.attributes["thriftrag.prompt_tokens"] == answer["receipt"]["prompt_tokens"]
    assert all(root.start_time <= span.start_time <= span.end_time <= root.end_time for span in stages)
    everything = json.dumps([[span.name, {name: str(value) for name, value in span.attributes.items()},
                              [event.name for event in span.events]] for span in spans])
    for told in ("Zeta", "warranty", "Rotterdam", "pump", "27", "otter"):
        assert told not in everything.lower() or told == "27", told


def test_without_an_endpoint_nothing_is_traced(tmp_path: Path) -> None:
    assert ServerSettings().otlp_endpoint == ""
    with opened("").request("GET", {}) as span:
        assert span is None


def test_a_collector_is_sent_to_and_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError) as caught:
        opened("http://127.0.0.1:4318/v1/traces")
    assert caught.value.field == "otlp_endpoint"
