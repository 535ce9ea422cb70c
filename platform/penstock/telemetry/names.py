"""The one place where span, attribute and metric names are spelt.

HTTP and error attributes follow the OpenTelemetry semantic conventions; what they do not cover is under `penstock.`.
"""

from __future__ import annotations

from typing import Final

SERVICE_GATEWAY: Final = "penstock-gateway"
SERVICE_REPLICA: Final = "penstock-replica"

SPAN_GATEWAY: Final = "gateway"
"""From the request's arrival at the gateway to its last byte out; kind SERVER."""
SPAN_REQUEST: Final = "request"
"""In the replica: from headers read to answer written; kind SERVER, child of the gateway span."""
SPAN_DECODE: Final = "decode"
SPAN_QUEUE: Final = "queue"
SPAN_EXECUTE: Final = "execute"
"""A request's share of a batch: same interval as the batch; linked to it."""
SPAN_CACHE: Final = "cache"
"""In place of `queue` and `execute`: a request got its answer from the cache, or waited for an identical one's."""
SPAN_ENCODE: Final = "encode"
SPAN_BATCH: Final = "batch"
"""One engine run; a root span of its own that links to every member's execute span."""
SPAN_HOLD: Final = "hold"
"""In the gateway: a request waited for a first replica."""

ATTR_MODEL: Final = "penstock.model.name"
ATTR_VERSION: Final = "penstock.model.version"
ATTR_NAMESPACE: Final = "penstock.namespace"
ATTR_REVISION: Final = "penstock.revision"
ATTR_REPLICA: Final = "penstock.replica.id"
ATTR_BATCH_ROWS: Final = "penstock.batch.rows"
ATTR_BATCH_REQUESTS: Final = "penstock.batch.requests"
ATTR_REQUEST_ROWS: Final = "penstock.request.rows"
ATTR_KEPT: Final = "penstock.trace.kept"
"""Why the trace was kept: `sampled`, `slow` or `failed`."""
ATTR_CACHE: Final = "penstock.cache.result"
"""What the prediction cache did: `hit`, `miss`, `shared` or `bypass`. Absent while it is off."""
ATTR_GATEWAY_SERVER: Final = "penstock.gateway.server"
"""HAProxy's backend and server; its agent where no replica was asked."""
ATTR_HTTP_METHOD: Final = "http.request.method"
ATTR_HTTP_STATUS: Final = "http.response.status_code"
ATTR_URL_PATH: Final = "url.path"
ATTR_ERROR_TYPE: Final = "error.type"

METRIC_REQUEST_SECONDS: Final = "penstock_request_duration_seconds"
METRIC_QUEUE_SECONDS: Final = "penstock_queue_duration_seconds"
METRIC_EXECUTE_SECONDS: Final = "penstock_execute_duration_seconds"
METRIC_BATCH_ROWS: Final = "penstock_batch_rows"
METRIC_REQUESTS: Final = "penstock_requests_total"
METRIC_QUEUED: Final = "penstock_queued_requests"
METRIC_IN_FLIGHT: Final = "penstock_in_flight_requests"
METRIC_CACHE_REQUESTS: Final = "penstock_cache_requests_total"
METRIC_CACHE_EVICTIONS: Final = "penstock_cache_evictions_total"
METRIC_CACHE_WAITING: Final = "penstock_cache_waiting_requests"
METRIC_CACHE_BYTES: Final = "penstock_cache_bytes"
METRIC_CACHE_ENTRIES: Final = "penstock_cache_entries"
METRIC_GATEWAY_SECONDS: Final = "penstock_gateway_request_duration_seconds"
METRIC_GATEWAY_REQUESTS: Final = "penstock_gateway_requests_total"
METRIC_GATEWAY_HELD: Final = "penstock_gateway_held_requests"
METRIC_GATEWAY_REPLICAS: Final = "penstock_gateway_replicas"
METRIC_RECONCILES: Final = "penstock_operator_reconciles_total"
METRIC_RECONCILE_SECONDS: Final = "penstock_operator_reconcile_duration_seconds"
METRIC_RECONCILE_QUEUE: Final = "penstock_operator_queued_keys"

SECONDS_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Histogram buckets in seconds, from 0.1 ms."""
ROWS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
