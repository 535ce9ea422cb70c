"""Ray's dashboard: Serve's declarative REST API, and the nodes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, ValidationError

from penstock.api.conditions import Reason
from penstock.api.problems import path_of
from penstock.errors import Invalid, Unavailable
from penstock.names import IMPORT_PATH
from penstock.serving.arguments import BuildArguments, Move
from penstock_operator.clients.bounds import Bounds
from penstock_operator.clients.documents import read_json, weigh
from penstock_operator.clients.exchange import BoundedClient, WholeAnswer
from penstock_operator.clients.services import ServiceTransport
from penstock_operator.deployment.observed import (
    ApplicationState,
    Node,
    ObservedApplication,
    ObservedReplica,
    declared_move,
)

_APPLICATIONS: Final = "/api/serve/applications/"
_MIB: Final = 2**20
_READ: Final = Bounds(seconds=15.0, most_bytes=8 * _MIB)
"""A thousand applications are some 5 MiB."""
_PUT: Final = Bounds(seconds=90.0, most_bytes=_MIB)
"""The first PUT starts Serve."""
_READING: Final = threading.Lock()
"""One answer is read at a time: in memory it is many times what it was on the wire, and reading it is this process' work."""
_LONGEST_MESSAGE: Final = 4000
"""Characters of what Serve says of an application or a deployment; it may be a trace."""
_LONGEST_NAME: Final = 100
_LONGEST_PROBLEM: Final = 300
_RUNNING: Final = "RUNNING"
_SERVING: Final = frozenset({_RUNNING, "UPDATING"})
_FREE: Final = re.compile(r"^(\d+(?:\.\d+)?)([KMGT]i)?B?/(\d+(?:\.\d+)?)(?:[KMGT]i)?B? (\S+)$", re.ASCII)
_FACTORS: Final = {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class PoolUnreachable(Unavailable):
    """The pool's dashboard gives no usable answer."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.POOL_UNREACHABLE, message)


class PoolUnauthorized(Unavailable):
    """The pool refuses our token."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.POOL_UNAUTHORIZED, message)


class _Read(BaseModel):
    """Part of an answer. Ray owns the rest, so unknown fields pass."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Message = Annotated[str, AfterValidator(lambda text: text[:_LONGEST_MESSAGE])]
"""It goes into objects' status, which the API bounds."""


class ReplicaDetails(_Read):
    """One replica, as Serve lists it."""

    replica_id: str = ""
    state: str
    node_id: str | None = None
    start_time_s: FiniteFloat


class DeploymentDetails(_Read):
    """One deployment, as Serve lists it."""

    status: str
    message: Message = ""
    target_num_replicas: int = 0
    replicas: tuple[ReplicaDetails, ...] = ()


class ApplicationDetails(_Read):
    """One application, as Serve lists it."""

    name: str
    status: ApplicationState
    message: Message = ""
    deployed_app_config: dict[str, Any] | None = None
    deployments: dict[str, DeploymentDetails] = {}


class ServeDetails(_Read):
    """`GET /api/serve/applications/`. The options are absent until Serve has started."""

    applications: dict[str, ApplicationDetails] = {}
    http_options: dict[str, Any] | None = None
    grpc_options: dict[str, Any] | None = None
    proxy_location: str | None = None
    weight: int = 0
    """Bytes that this takes in memory, about; ours to say."""


class _NodeState(_Read):
    node_id: str
    node_ip: str
    state: str
    resources_total: dict[str, FiniteFloat] = {}
    labels: dict[str, str] | None = None


class RayClient:
    """One Ray cluster. Safe for several threads.

    Args:
        address: base URL of the dashboard.
        token: Ray's authentication token, where it wants one.
        transport: for tests that answer in-process.
    """

    def __init__(self, address: str, token: str | None, transport: httpx.BaseTransport | None = None) -> None:
        self.address = address.rstrip("/")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = BoundedClient(self.address, headers, transport or ServiceTransport())

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def serve(self) -> ServeDetails:
        """What Serve runs. Raises `PoolUnreachable` or `PoolUnauthorized`."""
        body = self._call("GET", _APPLICATIONS).content
        try:
            with _READING:
                weight = weigh(body)
                return ServeDetails.model_validate_json(body).model_copy(update={"weight": weight})
        except ValueError as error:
            raise PoolUnreachable(f"{self.address} does not answer as Ray Serve does: {_shorten(error)}") from error

    def declare(self, config: Mapping[str, Any]) -> None:
        """PUT a whole `ServeDeploySchema`, which replaces all declared applications.

        Raises:
            Invalid: Serve refuses it, with Serve's words.
            PoolUnreachable, PoolUnauthorized: as they say.
        """
        self._call("PUT", _APPLICATIONS, config)

    def version(self) -> str:
        """Ray's version."""
        return str(self._json("/api/version").get("ray_version", ""))[:_LONGEST_NAME]

    def nodes(self) -> tuple[Node, ...]:
        """Live nodes with what they have and what of it is free."""
        listed = self._json("/api/v0/nodes?detail=1&limit=10000")
        summary = self._json("/nodes?view=summary")
        try:
            free = (summary.get("data") or {}).get("nodeLogicalResources") or {}
            states = [_NodeState.model_validate(each) for each in listed["data"]["result"]["result"]]
            return tuple(_node(each, str(free.get(each.node_id, ""))) for each in states if each.state == "ALIVE")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            said = _shorten(error)
            raise PoolUnreachable(f"{self.address} lists its nodes in a form unknown here: {said}") from error

    def unplaced_actors(self) -> frozenset[str]:
        """Names of actors that have no node yet.

        Serve itself lists no node for a replica until its constructor has ended.
        """
        state = "filter_keys=state&filter_predicates=%3D&filter_values=PENDING_CREATION"
        listed = self._json(f"/api/v0/actors?{state}&limit=10000")
        try:
            return frozenset(str(each["name"]) for each in listed["data"]["result"]["result"])
        except (KeyError, TypeError) as error:
            raise PoolUnreachable(
                f"{self.address} lists its actors in a form unknown here: {_shorten(error)}"
            ) from error

    def _json(self, path: str) -> dict[str, Any]:
        answer = self._call("GET", path)
        try:
            with _READING:
                content = read_json(answer.content)
        except ValueError as error:
            raise PoolUnreachable(f"{self.address}{path} does not answer in JSON: {_shorten(error)}") from error
        return content if isinstance(content, dict) else {}

    def _call(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> WholeAnswer:
        body = None if content is None else json.dumps(content)
        try:
            answer = self._http.exchange(method, path, _READ if method == "GET" else _PUT, content=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PoolUnreachable(f"{self.address} does not answer: {_shorten(error)}") from error
        if answer.status in {401, 403}:
            raise PoolUnauthorized(
                f"{self.address} refuses the token (HTTP {answer.status}); put Ray's token into a Secret and "
                "name it in the pool's spec.existing.tokenSecretRef"
            )
        if answer.status == httpx.codes.BAD_REQUEST and method == "PUT":
            raise Invalid(Reason.DEPLOY_FAILED, f"Ray Serve refuses the applications: {answer.excerpt(500)}")
        if not answer.is_success:
            raise PoolUnreachable(f"{self.address}{path} answers HTTP {answer.status}: {answer.excerpt()}")
        return answer


def _shorten(error: Exception) -> str:
    """What is wrong, whoever chose how much there is to say of it."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        said = f"{path_of(first['loc'])}: {first['msg']}"
    else:
        said = str(error) if isinstance(error, httpx.HTTPError | ValueError) else repr(error)
    return (said or type(error).__name__)[:_LONGEST_PROBLEM]


def application(details: ApplicationDetails) -> ObservedApplication:
    """Serve's answer as what the planner is told."""
    deployments = tuple(details.deployments.values())
    replicas = [replica for each in deployments for replica in each.replicas]
    waiting = [each.start_time_s for each in replicas if each.state == "STARTING" and not each.node_id]
    messages = [details.message, *(each.message for each in deployments)]
    move = declared_move(details.deployed_app_config)
    running = tuple(
        ObservedReplica(each.replica_id, each.node_id, each.start_time_s)
        for each in replicas
        if each.state == _RUNNING and each.node_id is not None
    )
    wanted = sum(each.target_num_replicas for each in deployments)
    return ObservedApplication(
        name=details.name,
        state=_state_of(details.status, move, replicas),
        message="\n".join(message for message in messages if message),
        running=sum(1 for each in replicas if each.state == _RUNNING),
        wanted=_without_extra(wanted, move),
        changing=any(each.state != _RUNNING for each in replicas) or len(running) != wanted,
        replicas=running,
        move=move,
        waiting_since=min(waiting, default=None),
        building=details.status is ApplicationState.DEPLOYING and not deployments,
        config=details.deployed_app_config,
        arguments=_arguments(details.deployed_app_config),
    )


def _without_extra(target: int, move: Move | None) -> int:
    """How many replicas there are to be, without the one more that is there while one moves."""
    return target - 1 if move is not None and move.under_way and target > move.replicas else target


def _state_of(state: ApplicationState, move: Move | None, replicas: Sequence[ReplicaDetails]) -> ApplicationState:
    """The state without what a move does to it, while as many replicas serve as before it.

    The one that leaves tells Serve that it is unwell, and while replicas are told of the move Serve calls that a deployment.
    """
    serving = sum(1 for each in replicas if each.state in _SERVING)
    if move is None or not 0 < move.replicas <= serving:
        return state
    hidden = (state is ApplicationState.UNHEALTHY and move.leaving) or (
        state is ApplicationState.DEPLOYING and move.under_way
    )
    return ApplicationState.RUNNING if hidden else state


def _arguments(config: Mapping[str, Any] | None) -> BuildArguments | None:
    """Our arguments, where the application is ours."""
    if config is None or config.get("import_path") != IMPORT_PATH:
        return None
    try:
        return BuildArguments.model_validate(config.get("args"))
    except ValidationError:
        return None


def _node(state: _NodeState, usage: str) -> Node:
    used: dict[str, float] = {}
    for line in usage.splitlines():
        match = _FREE.match(line)
        if match:
            used[match[4]] = float(match[1]) * _FACTORS[match[2]]
    total = state.resources_total
    free = {name: max(0.0, amount - used.get(name, 0.0)) for name, amount in total.items()}
    return Node(id=state.node_id, name=state.node_ip, total=total, available=free, labels=state.labels or {})
