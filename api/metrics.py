"""What Prometheus scrapes: latency by route and stage, tokens, money, queues, refusals, and violations of the budget law (none)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.figures import Row, rows_of
from api.lanes import Lane
from rag.llm.breaker import State
from rag.types import Answer, Step

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """One registry for each app, so that several in a process do not mix."""

    def __init__(self, lanes: Iterable[Lane], jobs: Callable[[], Mapping[str, int]],
                 breakers: Callable[[], Mapping[str, State]] = dict) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("thriftrag_requests", "Requests by route and status.", ("route", "method", "status"),
                                registry=self.registry)
        self.request_seconds = Histogram("thriftrag_request_seconds", "From the first byte in to the last byte out.", ("route",),
                                         buckets=_SECONDS, registry=self.registry)
        self.stage_seconds = Histogram("thriftrag_stage_seconds", "Stages of an answer.", ("stage",), buckets=_SECONDS,
                                       registry=self.registry)
        self.queue_seconds = Histogram("thriftrag_queue_seconds", "Time in line before work began.", ("lane",), buckets=_SECONDS,
                                       registry=self.registry)
        self.tokens = Counter("thriftrag_tokens", "Tokens of the reader.", ("kind",), registry=self.registry)
        self.cost = Counter("thriftrag_cost_usd", "US dollars spent on answers.", registry=self.registry)
        self.answers = Counter("thriftrag_answers", "Answers by how they ended.", ("outcome",), registry=self.registry)
        self.refused = Counter("thriftrag_refused", "Requests refused, by code.", ("code",), registry=self.registry)
        self.violations = Counter("thriftrag_budget_violations", "Contexts over their budget: a defect.", registry=self.registry)
        self.streams = Gauge("thriftrag_streams", "Event streams open now.", registry=self.registry)
        self.triggers = Counter("thriftrag_trigger", "Decisions whether memory answers or the index is searched, by rule.",
                                ("decision", "rule"), registry=self.registry)
        self.routes = Counter("thriftrag_route", "Decisions of the router: which reader is asked or kept, and when it was decided.",
                              ("decision", "asked"), registry=self.registry)
        self.calls = Counter("thriftrag_reader_calls", "Calls of readers for answers: also for queries, and both of the router's.",
                             registry=self.registry)
        for kind in ("prompt", "completion", "cached", "saved"):
            self.tokens.labels(kind)
        self.registry.register(_Standing(list(lanes), jobs, breakers))

    def stage(self, step: Step) -> None:
        self.stage_seconds.labels(step.stage).observe(step.seconds)
        if step.stage == "trigger":
            self.triggers.labels(str(step.facts.get("decision", "")), str(step.facts.get("rule", ""))).inc()
        elif step.stage == "route":
            self.routes.labels(str(step.facts.get("decision", "")), str(step.facts.get("asked", ""))).inc()

    def answered(self, answer: Answer) -> None:
        """Counts what an answer took."""
        receipt = answer.receipt
        for kind, count in (("prompt", receipt.prompt_tokens), ("completion", receipt.completion_tokens),
                            ("cached", receipt.cached_tokens), ("saved", max(0, receipt.saved_tokens))):
            self.tokens.labels(kind).inc(count)
        self.cost.inc(max(0.0, receipt.cost_usd))
        self.calls.inc(receipt.llm_calls)
        if receipt.context_tokens > receipt.budget_tokens:
            self.violations.inc()

    def lost(self, *, prompt: int, completion: int, usd: float) -> None:
        """Counts what a reader took that then failed."""
        self.tokens.labels("prompt").inc(prompt)
        self.tokens.labels("completion").inc(completion)
        self.cost.inc(max(0.0, usd))
        self.calls.inc()

    def rows(self) -> list[Row]:
        """All of it as JSON, for the other workers."""
        return rows_of(self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Standing(Collector):
    """What is counted elsewhere, looked up when it is asked for."""

    def __init__(self, lanes: list[Lane], jobs: Callable[[], Mapping[str, int]],
                 breakers: Callable[[], Mapping[str, State]]) -> None:
        self._lanes = lanes
        self._jobs = jobs
        self._breakers = breakers

    def collect(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("thriftrag_running", "Calls at work.", labels=["lane"])
        queued = GaugeMetricFamily("thriftrag_queued", "Calls in line.", labels=["lane"])
        shed = CounterMetricFamily("thriftrag_shed", "Calls refused because the line was full.", labels=["lane"])
        for lane in self._lanes:
            running.add_metric([lane.name], lane.running)
            queued.add_metric([lane.name], lane.queued)
            shed.add_metric([lane.name], lane.shed)
        jobs = GaugeMetricFamily("thriftrag_jobs", "Jobs of this process that have not ended.", labels=["state"])
        for state, count in self._jobs().items():
            jobs.add_metric([state], count)
        circuit = GaugeMetricFamily("thriftrag_reader_circuit", "1 for the state that a served reader's circuit is in.",
                                    labels=["model", "state"])
        for model, state in self._breakers().items():
            for each in get_args(State):
                circuit.add_metric([model, each], float(each == state))
        return running, queued, shed, jobs, circuit
