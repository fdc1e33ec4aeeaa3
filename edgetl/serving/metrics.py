"""What a server tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Upper bounds of the histograms, seconds: from a small network's inference to a queue that is nearly full.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts of one server; models are named by what it serves, never by what was asked for.

    Attributes:
        requests: answered, by model, route (infer, predict) and HTTP status.
        request_seconds: from the first byte that the server looked at to the answer, by model.
        inference_seconds: of the runtime alone, by model.
        waiting: requests that a model has now, running ones among them.
        reloads: new versions, by model and whether they were taken or refused.
    """

    def __init__(self) -> None:
        held = self._registry = CollectorRegistry()
        self.requests = Counter("edgetl_requests", "Requests answered.", ("model", "route", "status"), registry=held)
        self.request_seconds = Histogram(
            "edgetl_request_seconds", "From request to answer.", ("model",), registry=held, buckets=_SECONDS
        )
        self.inference_seconds = Histogram(
            "edgetl_inference_seconds", "Of the runtime alone.", ("model",), registry=held, buckets=_SECONDS
        )
        self.waiting = Gauge("edgetl_requests_in_progress", "Waiting or running.", ("model",), registry=held)
        self.reloads = Counter("edgetl_reloads", "New versions, taken or refused.", ("model", "outcome"), registry=held)
        self._versions = Gauge(
            "edgetl_model_version", "1 for the version in charge.", ("model", "digest"), registry=held
        )

    def in_charge(self, model: str, older: str | None, newer: str) -> None:
        """Say which version of a model answers now; ``older`` does no longer."""
        if older is not None:
            self._versions.remove(model, older)
        self._versions.labels(model, newer).set(1)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format 0.0.4."""
        return generate_latest(self._registry)
