"""Ray's dashboard: Serve's declarative REST API, and the nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable
from penstock.planning.arguments import BuildArguments
from penstock.planning.names import IMPORT_PATH
from penstock.planning.observed import Application, ApplicationState, Node
from penstock_operator.clients.services import ServiceTransport

_APPLICATIONS: Final = "/api/serve/applications/"
_READ_SECONDS: Final = 10.0
_PUT_SECONDS: Final = 90.0
"""The first PUT starts Serve."""
_FREE: Final = re.compile(r"^([\d.]+)([KMGT]i)?B?/([\d.]+)(?:[KMGT]i)?B? (\S+)$")
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


class ReplicaDetails(_Read):
    """One replica, as Serve lists it."""

    state: str
    node_id: str | None = None
    start_time_s: float


class DeploymentDetails(_Read):
    """One deployment, as Serve lists it."""

    status: str
    message: str = ""
    target_num_replicas: int = 0
    replicas: tuple[ReplicaDetails, ...] = ()


class ApplicationDetails(_Read):
    """One application, as Serve lists it."""

    name: str
    status: ApplicationState
    message: str = ""
    deployed_app_config: dict[str, Any] | None = None
    deployments: dict[str, DeploymentDetails] = {}


class ServeDetails(_Read):
    """`GET /api/serve/applications/`. The options are absent until Serve has started."""

    applications: dict[str, ApplicationDetails] = {}
    http_options: dict[str, Any] | None = None
    grpc_options: dict[str, Any] | None = None
    proxy_location: str | None = None


class _NodeState(_Read):
    node_id: str
    node_ip: str
    state: str
    resources_total: dict[str, float] = {}
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
        self._http = httpx.Client(
            base_url=self.address,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=_READ_SECONDS,
            transport=transport or ServiceTransport(),
            trust_env=False,
        )

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def serve(self) -> ServeDetails:
        """What Serve runs. Raises `PoolUnreachable` or `PoolUnauthorized`."""
        body = self._call("GET", _APPLICATIONS).content
        try:
            return ServeDetails.model_validate_json(body)
        except ValidationError as error:
            raise PoolUnreachable(f"{self.address} does not answer as Ray Serve does: {error}") from error

    def declare(self, config: Mapping[str, Any]) -> None:
        """PUT a whole `ServeDeploySchema`, which replaces all declared applications.

        Raises:
            Invalid: Serve refuses it, with Serve's words.
            PoolUnreachable, PoolUnauthorized: as they say.
        """
        self._call("PUT", _APPLICATIONS, config)

    def version(self) -> str:
        """Ray's version."""
        return str(self._json("/api/version").get("ray_version", ""))

    def nodes(self) -> tuple[Node, ...]:
        """Live nodes with what they have and what of it is free."""
        listed = self._json("/api/v0/nodes?detail=1&limit=10000")
        summary = self._json("/nodes?view=summary")
        free = (summary.get("data") or {}).get("nodeLogicalResources") or {}
        try:
            states = [_NodeState.model_validate(each) for each in listed["data"]["result"]["result"]]
        except (KeyError, TypeError, ValidationError) as error:
            raise PoolUnreachable(f"{self.address} lists its nodes in a form unknown here: {error!r}") from error
        return tuple(_node(each, str(free.get(each.node_id, ""))) for each in states if each.state == "ALIVE")

    def unplaced(self) -> frozenset[str]:
        """Names of actors that have no node yet.

        Serve itself lists no node for a replica until its constructor has ended.
        """
        state = "filter_keys=state&filter_predicates=%3D&filter_values=PENDING_CREATION"
        listed = self._json(f"/api/v0/actors?{state}&limit=10000")
        try:
            return frozenset(str(each["name"]) for each in listed["data"]["result"]["result"])
        except (KeyError, TypeError) as error:
            raise PoolUnreachable(f"{self.address} lists its actors in a form unknown here: {error!r}") from error

    def _json(self, path: str) -> dict[str, Any]:
        response = self._call("GET", path)
        try:
            content = response.json()
        except ValueError as error:
            raise PoolUnreachable(f"{self.address}{path} does not answer in JSON") from error
        return content if isinstance(content, dict) else {}

    def _call(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> httpx.Response:
        timeout = _READ_SECONDS if method == "GET" else _PUT_SECONDS
        try:
            response = self._http.request(method, path, json=content, timeout=timeout)
        except httpx.HTTPError as error:
            raise PoolUnreachable(f"{self.address} does not answer: {error or type(error).__name__}") from error
        if response.status_code in {401, 403}:
            raise PoolUnauthorized(
                f"{self.address} refuses the token (HTTP {response.status_code}); put Ray's token into a Secret and "
                "name it in the pool's spec.existing.tokenSecretRef"
            )
        if response.status_code == httpx.codes.BAD_REQUEST and method == "PUT":
            raise Invalid(Reason.DEPLOY_FAILED, f"Ray Serve refuses the applications: {response.text[:500]}")
        if response.is_error:
            raise PoolUnreachable(f"{self.address}{path} answers HTTP {response.status_code}: {response.text[:200]}")
        return response


def application(details: ApplicationDetails) -> Application:
    """Serve's answer as what the planner is told."""
    deployments = tuple(details.deployments.values())
    replicas = [replica for each in deployments for replica in each.replicas]
    waiting = [each.start_time_s for each in replicas if each.state == "STARTING" and not each.node_id]
    messages = [details.message, *(each.message for each in deployments)]
    return Application(
        name=details.name,
        state=details.status,
        message="\n".join(message for message in messages if message),
        running=sum(1 for each in replicas if each.state == "RUNNING"),
        wanted=sum(each.target_num_replicas for each in deployments),
        waiting_since=min(waiting, default=None),
        building=details.status is ApplicationState.DEPLOYING and not deployments,
        config=details.deployed_app_config,
        arguments=_arguments(details.deployed_app_config),
    )


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
    return Node(name=state.node_ip, total=total, available=free, labels=state.labels or {})
