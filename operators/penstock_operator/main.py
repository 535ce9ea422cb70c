"""The operator's entry point."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Final

import penstock
from penstock.errors import Invalid
from penstock.telemetry import names
from penstock_operator.command_line import read
from penstock_operator.health import HealthServer
from penstock_operator.operation import Operation
from penstock_operator.runtime.cluster import Cluster, Key
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.copies.mirrored import MirroredCluster
from penstock_operator.runtime.leading.accession import Accession
from penstock_operator.runtime.leading.lease import Election
from penstock_operator.runtime.loop.events import EventRecorder
from penstock_operator.runtime.metrics import show_secret
from penstock_operator.settings import Settings
from penstock_runtime.logs import RateLimitFilter
from penstock_runtime.spans import SpanSink
from penstock_runtime.trust import trust_named_authorities

log = logging.getLogger(__name__)

_CONTROLLER: Final = "penstock.dev/operator"
_STOP_SECONDS: Final = 10.0
_FLUSH_SECONDS: Final = 5.0
_SPANS_SECONDS: Final = 2.0
_LOGGED_AT_ONCE: Final = 500.0
_LOGGED_PER_SECOND: Final = 5.0
_STORE_NAME: Final = "cluster.sqlite"


class KeyValueFormatter(logging.Formatter):
    """One line of `key=value` for each record; a trace is one value."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        return (
            f"time={when} level={record.levelname.lower()} logger={record.name} "
            f"msg={json.dumps(message, ensure_ascii=False)}"
        )


def connect(settings: Settings) -> Cluster:
    """The cluster that the settings name. Raises `Invalid`."""
    if settings.standalone is not None:
        path = settings.standalone
        return EmbeddedCluster(path / _STORE_NAME if path.is_dir() else path)
    from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415  # slow, and not for standalone

    return KubernetesCluster.connect(settings.kubeconfig, settings.context)


def run(cluster: Cluster, settings: Settings, stop: threading.Event) -> bool:
    """Reconcile until `stop` is set.

    Returns:
        Whether all that ran had ended in time.
    """
    show_secret(settings.gateway_secret)
    recorder = EventRecorder(cluster, _CONTROLLER, settings.identity)
    copies = MirroredCluster(cluster)
    accession = Accession(lambda patient: copies.refresh(patient=patient))
    election = Election(
        cluster,
        Key(settings.lease_namespace, settings.lease_name),
        settings.identity,
        elected=accession.begin,
        # Every reconcile and every PUT asks first whether it may act; nothing else acts.
        lost=accession.end,
    )
    sink = SpanSink.from_env(names.SERVICE_OPERATOR, {"service.version": penstock.__version__})
    operation = Operation(copies, settings, recorder.record, lambda: election.leading and accession.complete, sink.emit)
    health = HealthServer(settings.health_host, settings.health_port, operation.why_unhealthy, operation.why_unready)
    health.start()
    recorder.start()
    operation.start()
    election.start()
    log.info("started; health on port %d", health.port)
    stop.wait()
    log.info("stopping")
    ended = operation.stop(_STOP_SECONDS)
    if ended:
        election.stop()
    else:
        log.warning("a reconcile has not ended; the lease runs out by itself")
    recorder.stop(_FLUSH_SECONDS)
    health.stop()
    sink.shutdown(_SPANS_SECONDS)
    return ended


def main(arguments: list[str] | None = None) -> int:
    """Run the operator until SIGTERM or SIGINT; the exit status."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValueFormatter())
    # All tenants' objects are told of by the same lines of code.
    handler.addFilter(RateLimitFilter(burst=_LOGGED_AT_ONCE, per_second=_LOGGED_PER_SECOND))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    trust_named_authorities(os.environ)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = read(sys.argv[1:] if arguments is None else arguments)
        logging.getLogger().setLevel(settings.log_level.upper())
        cluster = connect(settings)
    except Invalid as error:
        log.error("%s", error.message)  # noqa: TRY400  # it is the user's to correct; a trace would hide the sentence
        return 2
    try:
        return 0 if run(cluster, settings, stop) else 1
    finally:
        cluster.close()


if __name__ == "__main__":
    sys.exit(main())
