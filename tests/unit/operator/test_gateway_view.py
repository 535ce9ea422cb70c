"""What the operator holds a gateway to know, and when it asks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from penstock.routing.fleet import Endpoint
from penstock.routing.leases import ASYNCHRONOUS, PREFER, Route, RouteList, RouteStatus
from penstock_operator.clients.gateway import GatewayClient
from penstock_operator.deployment.observed import GatewayProblem, ObservedGateway
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.view import GatewayView


def status(route: Route | None, *, settled: bool = True) -> RouteStatus:
    return RouteStatus(namespace="ns", model="m", declared=route, replicas=[], held_requests=0, settled=settled)


def route(revision: str) -> Route:
    return Route(namespace="ns", model="m", revisions={revision: 100})


@dataclass
class Agent:
    """A gateway's agent in this process, of this release or of one that knows no `Prefer`."""

    waits: bool = False
    declared: Route | None = None
    listed: int = 0
    preferred: list[str | None] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            self.listed += 1
            body = RouteList(url="http://gateway", routes=[status(self.declared)])
            return httpx.Response(200, text=body.model_dump_json())
        self.preferred.append(request.headers.get(PREFER))
        self.declared = Route.model_validate_json(request.content)
        if self.waits:
            return httpx.Response(204)
        return httpx.Response(202, text=status(self.declared, settled=False).model_dump_json())


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def viewed(agent: Agent, clock: Clock) -> GatewayView:
    endpoint = Endpoint("http://gateway:1", "http://10.0.0.1:1")
    return GatewayView(GatewayClient(endpoint, "token", httpx.MockTransport(agent)), clock)


def seen(view: GatewayView) -> RouteStatus:
    found = view.look("ns", "m")
    assert isinstance(found, ObservedGateway)
    assert found.route is not None
    return found.route


def test_what_it_answers_to_a_declaration_is_known_without_asking_until_all_is_listed_anew() -> None:
    agent, clock = Agent(), Clock()
    view = viewed(agent, clock)
    assert seen(view).declared is None
    clock.now = 0.1
    answer = view.client.declare(route("r1"))
    assert answer is not None
    view.note_change("ns", "m", answer)
    assert (seen(view), agent.listed, agent.preferred) == (status(route("r1"), settled=False), 1, [ASYNCHRONOUS])
    clock.now = 10.0
    assert (seen(view), agent.listed) == (status(route("r1")), 2)
    agent.declared = route("r2")
    clock.now = 20.0
    assert seen(view).declared == route("r2")


def test_one_of_a_former_release_says_nothing_and_is_asked() -> None:
    agent, clock = Agent(waits=True), Clock()
    view = viewed(agent, clock)
    assert seen(view).declared is None
    assert view.client.declare(route("r1")) is None
    view.note_change("ns", "m", None)
    assert (seen(view).declared, agent.listed) == (route("r1"), 2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(httpx.ConnectError("Connection refused"), "Connection refused", id="in its own words"),
        pytest.param(httpx.RemoteProtocolError(""), "RemoteProtocolError", id="by its kind, where it has none"),
    ],
)
def test_of_a_gateway_that_does_not_answer_it_is_told_what_is_wrong(error: httpx.HTTPError, said: str) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    endpoint = Endpoint("http://gateway:1", "http://10.0.0.1:1")
    found = GatewayView(GatewayClient(endpoint, "token", httpx.MockTransport(fail)), Clock()).look("ns", "m")
    assert isinstance(found, GatewayProblem)
    assert found.message.endswith(said)


class Served(ThreadingHTTPServer):
    """A gateway's agent at an address of this machine; it takes one token alone."""

    def __init__(self, host: str, port: int, token: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                known = self.headers["authorization"] == f"Bearer {token}"
                body = RouteList(url="http://gateway", routes=[]).model_dump_json().encode() if known else b"refused"
                self.send_response(200 if known else 403)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815  # http.server's name

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        super().__init__((host, port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_a_gateway_of_another_secret_is_told_beside_one_that_answers_since_it_takes_requests() -> None:
    ours = Served("127.0.0.1", 0, "ours")
    port = int(ours.server_address[1])
    another = Served("127.0.0.2", port, "another")
    fleet = Fleet((f"http://gateways.test:{port}",), "ours", lambda _: ("127.0.0.1", "127.0.0.2"))
    try:
        found = fleet.look("ns", "m").gateways
        assert [type(each) for each in found] == [ObservedGateway, GatewayProblem]
        assert isinstance(found[1], GatewayProblem)
        assert "different secrets" in found[1].message
        another.shutdown()
        another.server_close()
        for view in fleet.sites()[0]:
            view.probe()
        assert GatewayProblem not in [type(each) for each in fleet.look("ns", "m").gateways], (
            "one that is gone is left out"
        )
    finally:
        fleet.close()
        ours.shutdown()
        ours.server_close()
