"""Metrics for Prometheus at /metrics. Names end in their unit; counters never fall, even when an engine restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hermes_cli.engine.protocol import Done, EngineStats
from hermes_cli.server.pooled_model import ModelObject

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# Seconds: from a cached prompt on a GPU to a long one on a CPU.
_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RATES = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)  # tokens per second of one request

# Field of EngineStats: the name of its metric, and its help.
_COUNTERS = {
    "requests": ("requests", "Generations that were begun."),
    "failed": ("requests_failed", "Generations that ended with an error."),
    "cancelled": ("requests_cancelled", "Generations whose client left."),
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts that were computed."),
    "cached_tokens": ("prompt_cached_tokens", "Tokens of prompts that came from the cache."),
    "completion_tokens": ("completion_tokens", "Tokens that were generated."),
    "drafted_tokens": ("drafted_tokens", "Tokens that were drafted by speculation."),
    "accepted_tokens": ("drafted_tokens_accepted", "Drafted tokens that were accepted."),
    "preempted": ("requests_preempted", "Times that a request was preempted for want of KV cells."),
    "steps": ("decode_steps", "Calls of llama_decode."),
    "decode_seconds": ("decode_seconds", "Seconds in llama_decode."),
    "step_seconds": ("step_seconds", "Seconds of whole steps, sampling included."),
    "restarts": ("engine_restarts", "Times that an engine's process was started in place of one that died."),
}
_GAUGES = {
    "queued": ("requests_waiting", "Generations that wait for their turn."),
    "cache_cells": ("kv_cache_tokens", "Tokens that the KV cache holds at most."),
    "cache_used": ("kv_cache_used_tokens", "Tokens that the KV cache holds."),
    "cache_reusable": ("kv_cache_reusable_tokens", "Of those, kept from earlier requests only."),
    "rss_bytes": ("engine_resident_bytes", "Bytes of RAM of the engine's process."),
    "running": ("requests_running", "Generations at work."),
}


class Metrics(Collector):
    """Counters of the server, exposed together with those of the engines."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which tells nothing
        self._stats: Mapping[str, EngineStats] = {}
        self._models: tuple[ModelObject, ...] = ()
        self._evictions = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._http = Counter(
            "hermes_http_requests",
            "Requests by the status of their reply.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = self._histogram(
            "http_request_seconds", "From the head of a request to the end of its reply.", "route"
        )
        self._first = self._histogram(
            "time_to_first_token_seconds", "From the request for a generation to its first token, waiting included."
        )
        self._queue = self._histogram("queue_seconds", "From the request for a generation to the first work on it.")
        self._rate = self._histogram(
            "generation_tokens_per_second", "Speed of one generation, after its first token.", buckets=_RATES
        )

    def _histogram(self, name: str, text: str, label: str = "model", buckets: tuple[float, ...] = _WAITS) -> Histogram:
        return Histogram(f"hermes_{name}", text, (label,), buckets=buckets, registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that is over; `route` is its template, so that there are few."""
        self._http.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def first_token(self, model: str, seconds: float) -> None:
        """Count the first token of a generation."""
        self._first.labels(model).observe(seconds)

    def generated(self, model: str, done: Done) -> None:
        """Count a generation that is over."""
        self._queue.labels(model).observe(done.queued_seconds)
        if done.completion_tokens > 1 and done.completion_seconds > 0:
            self._rate.labels(model).observe((done.completion_tokens - 1) / done.completion_seconds)

    def exposition(self, stats: Mapping[str, EngineStats], models: Iterable[ModelObject], evictions: int) -> bytes:
        """Return all metrics as text."""
        self._stats, self._models, self._evictions = stats, tuple(models), evictions
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the engines, as of the last exposition."""
        kind: type[CounterMetricFamily | GaugeMetricFamily]
        for kind, metrics in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
            for field, (name, text) in metrics.items():
                family = kind(f"hermes_{name}", text, labels=("model",))
                for model, stats in self._stats.items():
                    value = getattr(stats, field)
                    family.add_metric([model], len(value) if field == "running" else value)
                yield family
        loaded = GaugeMetricFamily("hermes_model_loaded", "1 if the model is in memory.", labels=("model",))
        for served in self._models:
            loaded.add_metric([served.id], served.state == "ready")
        yield loaded
        text = "Times that a model was unloaded to make room for another one."
        yield CounterMetricFamily("hermes_evictions", text, self._evictions)
