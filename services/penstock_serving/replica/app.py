"""The Serve deployment: places a replica server beside itself, watches it, and speaks for it to Serve.

Requests do not come through here; they reach the server's own socket. A GET that does is a wake-up.
"""

import asyncio
import logging
import os
import time
from typing import Any, Final

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from penstock.api.conditions import Reason
from penstock.cost.usage import ReservedResources
from penstock.errors import Unavailable
from penstock.names import ACCELERATOR_LABEL, SERVE_DEPLOYMENT
from penstock.serving.arguments import BuildArguments, UserConfig, changed_message
from penstock.serving.control import ActorFacts, Ready, Reconfigure, ReplicaSettings
from penstock_serving.replica.own_address import own_address
from penstock_serving.replica.policy import statistics
from penstock_serving.replica.supervision import Supervisor

log = logging.getLogger(__name__)

_STATISTICS_SECONDS: Final = 2.0
_DRAIN_MARGIN_SECONDS: Final = 3.0
_UPDATE_SECONDS: Final = 4.0
"""Replicas have taken other settings by then. Serve calls one that is unwell before that a failed update, and not a lost replica."""


def _end_actor(status: int) -> None:
    """End the actor with its server: Serve notices a dead actor sooner than one that says that it is unwell."""
    log.error("ending the replica actor: its server ended with status %d", status)
    os._exit(1)


class ReplicaActor:
    """One replica actor.

    Args:
        arguments: the application's `args`.

    Raises:
        ReplicaFailedError: the server cannot start; Serve puts its text into the deployment's message.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        started_ns = time.time_ns()
        build_arguments = BuildArguments.model_validate(arguments)
        self._replica = build_arguments.replica
        context = serve.get_replica_context()
        self._config = UserConfig.model_validate(context._deployment_config.user_config or {})  # noqa: SLF001  # Serve calls reconfigure() only after the constructor, and the server shall start with the right settings
        settings = ReplicaSettings.from_application(
            build_arguments,
            self._config,
            replica_id=context.replica_id.unique_id,
            host=own_address(ray.util.get_node_ip_address(), self._replica.gateways),
            started_ns=started_ns,
            actor=_actor_facts(),
        )
        self._id = context.replica_id.unique_id
        self._supervisor = Supervisor(settings, _end_actor)
        self._configured_at = time.monotonic()
        self._ready: Ready = self._supervisor.start()

    async def __call__(self, request: Request) -> JSONResponse:
        """A wake-up: by the time this runs, there is a replica."""
        del request
        return JSONResponse({"address": self._ready.address, "digest": self._ready.digest})

    def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        if not self._supervisor.alive:
            raise Unavailable(Reason.REPLICA_FAILED, "the replica server is not running")
        if self._config.sends_away(self._id) and time.monotonic() - self._configured_at > _UPDATE_SECONDS:
            # Serve has no call to stop this one replica. It stops one that is unwell as any other: it leaves the gateways first.
            raise Unavailable(
                Reason.PENDING, "it leaves, since another replica was started on another node in its place"
            )
        if self._config.digest not in (None, self._ready.digest):
            # It started beside the first one, before that had told which model the revision is.
            message = changed_message(self._ready.digest, self._config.digest or "", self._replica.revision)
            raise Unavailable(Reason.MODEL_CHANGED, message)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new settings in place."""
        config = UserConfig.model_validate(user_config)
        if config == self._config:
            return
        self._config, self._configured_at = config, time.monotonic()
        self._supervisor.reconfigure(Reconfigure.from_config(config))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the scaling policy reads: the server's statistics, and the limits that change in place."""
        asked = asyncio.wrap_future(self._supervisor.statistics())
        stats = await asyncio.wait_for(asked, _STATISTICS_SECONDS)
        return statistics(stats, self._config, keeps_extra=self._config.keeps_extra(self._id))

    async def __del__(self) -> None:
        """Serve awaits this before the actor goes: leave the gateways, then answer what is in flight."""
        supervisor = getattr(self, "_supervisor", None)
        if supervisor is not None:
            timeout = self._replica.drain_seconds + _DRAIN_MARGIN_SECONDS
            await asyncio.to_thread(supervisor.drain, timeout)


def _actor_facts() -> ActorFacts:
    """What Ray keeps for this actor, and by which processes. Its worker processes are the raylet's children."""
    context = ray.get_runtime_context()
    kept: dict[str, float] = dict(context.get_assigned_resources())
    cpus, memory = kept.pop("CPU", 0.0), kept.pop("memory", 0.0)
    kind = str(context.get_node_labels().get(ACCELERATOR_LABEL, ""))
    pieces = kept.get("GPU", kept.get(kind, 0.0))
    reserved = ReservedResources(
        cpus=cpus, memory_bytes=memory, accelerators=pieces, accelerator=kind if pieces else ""
    )
    return ActorFacts(process=os.getpid(), raylet=os.getppid(), reserved=reserved)


def build(args: BuildArguments) -> serve.Application:
    """The application that `import_path` names. Serve validates `args` against the annotation."""
    # One try: the operator sees the reason at once, and tries again itself, with a back-off.
    replica = serve.deployment(ReplicaActor, name=SERVE_DEPLOYMENT, max_constructor_retry_count=1)
    return replica.bind(args.model_dump(mode="json"))
