"""The life of a replica process: load, warm up, listen, register, serve, leave, drain, exit."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import uvloop
from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid, PenstockError
from penstock.serving.control import (
    COMMAND,
    Drain,
    Drained,
    QueryStats,
    Ready,
    Reconfigure,
    ReplicaSettings,
    StartFailed,
    Stats,
)
from penstock.telemetry import names
from penstock_runtime.logs import RateLimitFilter
from penstock_runtime.parent_death import end_with_parent
from penstock_runtime.spans import SpanSink
from penstock_runtime.trust import trust_named_authorities
from penstock_serving.replica.control import ControlPipe
from penstock_serving.replica.documents import ReplicaDocuments
from penstock_serving.replica.front.http import HttpFront
from penstock_serving.replica.grpc.front import RpcFront
from penstock_serving.replica.model.admission import ModelChanged
from penstock_serving.replica.model.loading import LoadedModel, load
from penstock_serving.replica.model.warmup import warm_up
from penstock_serving.replica.registration import Leases
from penstock_serving.replica.service import InferenceService
from penstock_serving.replica.shadow.shadowing import Shadowing
from penstock_serving.replica.telemetry.starting import StartTrace
from penstock_serving.replica.telemetry.usage import LOOK_SECONDS, UsageMeter, UsageMetrics

if TYPE_CHECKING:
    from penstock_serving.replica.identity import ReplicaIdentity

logger = logging.getLogger(__name__)

_TICK_SECONDS: Final = 1.0
_DRAIN_POLL_SECONDS: Final = 0.02
_SPANS_SECONDS: Final = 5.0


def main() -> int:
    """Run one replica. Returns the exit status."""
    began_ns = time.time_ns()
    faulthandler.enable()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(RateLimitFilter())
    trust_named_authorities(os.environ)
    parent = os.getppid()
    # The signal comes when the *thread* that started this process ends, so its handler must look whether the parent lives.
    # Until the event loop handles it; the loop's start looks at the parent once more.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    end_with_parent(parent, signal.SIGUSR1)
    pipe = ControlPipe()
    line = pipe.first_line()
    if not line:
        logger.error("standard input closed before the settings came")
        return 1
    try:
        settings = ReplicaSettings.model_validate_json(line)
    except ValidationError as error:
        pipe.send(StartFailed(reason=Reason.INVALID_SPEC, message=f"the replica's settings are wrong: {error}"))
        return 1
    try:
        identity = _identity(settings)
    except Invalid as error:
        pipe.send(StartFailed(reason=Reason.INVALID_SPEC, message=f"the replica's settings are wrong: {error.message}"))
        return 1
    start = StartTrace(settings, began_ns)
    start.end_phase(names.SPAN_SPAWN)
    try:
        model = load(settings, start.end_phase)
    except PenstockError as error:
        logger.error("%s: %s", error.reason, error.message)  # noqa: TRY400 -- a refusal has no traceback
        found = error.found if isinstance(error, ModelChanged) else None
        pipe.send(StartFailed(reason=error.reason, message=error.message, digest=found))
        return 1
    try:
        return uvloop.run(_serve(settings, model, pipe, parent, start, identity=identity))
    except OSError as error:
        pipe.send(StartFailed(reason=Reason.REPLICA_FAILED, message=f"cannot listen on {settings.host}: {error}"))
        return 1


async def _serve(
    settings: ReplicaSettings,
    model: LoadedModel,
    pipe: ControlPipe,
    parent: int,
    start: StartTrace,
    *,
    identity: ReplicaIdentity | None,
) -> int:
    sink = SpanSink.from_env(names.SERVICE_REPLICA, _resource(settings))
    service = InferenceService(settings, model, sink)
    documents = ReplicaDocuments(settings, model, service)
    front = HttpFront(settings, model, service, documents, RpcFront(settings, model, service, documents))
    for rows, seconds in warm_up(model.engine, model.trial.joining, settings.batching.max_batch_size).items():
        service.executor.observe_warm_up(rows, seconds)
    start.end_phase(names.SPAN_WARM_UP)
    listener, address = await front.listen(settings.host, settings.port, identity.context if identity else None)
    usage = UsageMeter(settings.actor)
    service.metrics.add(UsageMetrics(settings, lambda: usage.usage))
    service.shadow = Shadowing(settings, model, address, identity)
    leaving = asyncio.Event()
    _leave_on_signals(leaving, parent)
    pipe.start(lambda line: _command(line, service, front, pipe, leaving), leaving.set)
    # What has been made so far stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    service.begin()
    leases = Leases(
        settings,
        address,
        model.digest,
        service.stats,
        metadata=documents.model_metadata().decode(),
        joining=lambda: service.joining,
        showing=front.guard.follow,
        room=service.room,
        identity=identity,
        on_orders=service.obey,
        outcomes=service.outcomes,
    )
    works = (_tick(service, front), _meter_usage(usage, service), _export_start(start, service, leases, sink))
    tasks = [asyncio.create_task(work) for work in works]
    pipe.send(Ready(address=address, digest=model.digest))
    logger.info("serving %s/%s version %s on %s", settings.namespace, settings.model, settings.version, address)
    await leaving.wait()
    await _drain(settings, service, front, listener, leases)
    for task in tasks:
        task.cancel()
    service.executor.close()
    model.held.close()
    await asyncio.get_running_loop().run_in_executor(None, sink.shutdown, _SPANS_SECONDS)
    pipe.send(Drained())
    logger.info("drained")
    return 0


def _resource(settings: ReplicaSettings) -> dict[str, str]:
    """What its spans say of who made them."""
    return {
        names.ATTR_NAMESPACE: settings.namespace,
        names.ATTR_MODEL: settings.model,
        names.ATTR_VERSION: settings.version,
        names.ATTR_REVISION: settings.revision,
        names.ATTR_REPLICA: settings.replica_id,
    }


def _leave_on_signals(leaving: asyncio.Event, parent: int) -> None:
    """Leave when asked to, and once the parent has ended, which may have been before anybody listened."""

    def parent_signal() -> None:
        if os.getppid() != parent:
            leaving.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, parent_signal)
    parent_signal()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)


def _identity(settings: ReplicaSettings) -> ReplicaIdentity | None:
    if not settings.gateway_authority:
        return None
    from penstock_serving.replica.identity import ReplicaIdentity  # noqa: PLC0415 -- megabytes, for TLS alone

    return ReplicaIdentity(settings.gateway_authority)


def _command(
    line: bytes, service: InferenceService, front: HttpFront, pipe: ControlPipe, leaving: asyncio.Event
) -> None:
    try:
        command = COMMAND.validate_json(line)
    except ValidationError:
        logger.exception("a command was not understood")
        return
    match command:
        case Reconfigure():
            service.reconfigure(command)
            front.reconfigure(command)
        case QueryStats():
            pipe.send(Stats(stats=service.stats()))
        case Drain():
            leaving.set()


async def _tick(service: InferenceService, front: HttpFront) -> None:
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        now = time.monotonic()
        service.tick(now)
        front.check_deadlines(now)


async def _meter_usage(usage: UsageMeter, service: InferenceService) -> None:
    """Look again and again, beside the event loop: a machine may have thousands of processes."""
    metrics = service.metrics
    try:
        while True:
            await asyncio.to_thread(usage.look, metrics.requests[""], metrics.execute_seconds.total)
            await asyncio.sleep(LOOK_SECONDS)
    except OSError as error:
        logger.warning("what this replica uses is told no more: %s", error)


async def _export_start(start: StartTrace, service: InferenceService, leases: Leases, sink: SpanSink) -> None:
    """Export the phases of the start: once requests can come, and once one was answered."""
    if not sink.enabled:
        return
    await leases.registered.wait()
    start.end_phase(names.SPAN_REGISTER)
    start.export(sink)
    await service.answered.wait()
    start.export_last(names.SPAN_FIRST_ANSWER, sink)


async def _drain(
    settings: ReplicaSettings, service: InferenceService, front: HttpFront, listener: asyncio.Server, leases: Leases
) -> None:
    """Leave the gateways first; then finish what came, for at most `drain_seconds`."""
    service.ready = False
    deadline = time.monotonic() + settings.drain_seconds
    await leases.leave()
    service.obey(None)
    listener.close()
    while True:
        front.drain()
        if not service.in_flight and not front.connections:
            return
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(_DRAIN_POLL_SECONDS)
    if service.in_flight:
        logger.warning("%d requests were still in flight after %.1f s", service.in_flight, settings.drain_seconds)
    front.abort()
