"""The replica's Prometheus metrics: plain counters on the data path, made into families when they are scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.protocol.refusals import STATUS
from penstock.telemetry import names
from penstock_serving.replica.cache.cache import CacheResult, PredictionCache
from penstock_serving.replica.call import Call
from penstock_serving.replica.telemetry.load import Histogram, LoadMeter

_LABELS = ("namespace", "model", "version")


class ReplicaMetrics(Collector):
    """What one replica has counted."""

    def __init__(self, namespace: str, model: str, version: str, load: LoadMeter, cache: PredictionCache[Call]) -> None:
        self._labels = (namespace, model, version)
        self._load = load
        self._cache = cache
        self.request_seconds = Histogram(names.SECONDS_BUCKETS)
        self.execute_seconds = Histogram(names.SECONDS_BUCKETS)
        self.batch_rows = Histogram(names.ROWS_BUCKETS)
        self.requests: Counter[str] = Counter()
        """By reason of the refusal; empty for those that were answered."""
        self.queued = 0
        self.joined = False
        """Whether several requests may share a run."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def add(self, collector: Collector) -> None:
        """Tell what another has counted, too."""
        self._registry.register(collector)

    def text(self, queued: int) -> bytes:
        """The exposition text. `queued`: requests waiting for the engine now."""
        self.queued = queued
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """All families."""
        yield self._histogram(names.METRIC_REQUEST_SECONDS, "From headers read to answer written", self.request_seconds)
        yield self._histogram(names.METRIC_QUEUE_SECONDS, "Waiting for the engine", self._load.waits)
        yield self._histogram(names.METRIC_EXECUTE_SECONDS, "One engine run", self.execute_seconds)
        yield self._histogram(names.METRIC_BATCH_ROWS, "Rows in a batch", self.batch_rows)
        counted = CounterMetricFamily(
            names.METRIC_REQUESTS.removesuffix("_total"), "Infer requests by HTTP status", labels=(*_LABELS, "status")
        )
        by_status: Counter[int] = Counter()
        for reason, count in self.requests.items():
            by_status[STATUS.get(reason, 500) if reason else 200] += count
        for status, count in by_status.items():
            counted.add_metric((*self._labels, str(status)), count)
        yield counted
        yield from self._cache_counters()
        for name, text, value in (
            (names.METRIC_QUEUED, "Requests waiting for the engine", self.queued),
            (names.METRIC_IN_FLIGHT, "Requests queued or executing", self._load.in_flight),
            (names.METRIC_CACHE_WAITING, "Requests waiting for the answer to an identical one", self._cache.waiting),
            (names.METRIC_CACHE_BYTES, "In use by the prediction cache", self._cache.bytes_used),
            (names.METRIC_JOINED, "Whether several requests may share a run", int(self.joined)),
            (names.METRIC_CACHE_ENTRIES, "Answers in the prediction cache", self._cache.entries),
        ):
            gauge = GaugeMetricFamily(name, text, labels=_LABELS)
            gauge.add_metric(self._labels, value)
            yield gauge

    def _cache_counters(self) -> Iterable[Metric]:
        asked = CounterMetricFamily(
            names.METRIC_CACHE_REQUESTS.removesuffix("_total"),
            "Infer requests by what the prediction cache did",
            labels=(*_LABELS, "result"),
        )
        for result in CacheResult:
            asked.add_metric((*self._labels, result), self._cache.results[result])
        yield asked
        evicted = CounterMetricFamily(
            names.METRIC_CACHE_EVICTIONS.removesuffix("_total"), "Answers dropped for room", labels=_LABELS
        )
        evicted.add_metric(self._labels, self._cache.evictions)
        yield evicted

    def _histogram(self, name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
        family = HistogramMetricFamily(name, text, labels=_LABELS)
        seen = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            seen += count
            buckets.append((bound, seen))
        family.add_metric(self._labels, buckets, histogram.total)
        return family
