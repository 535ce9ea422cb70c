"""Carries out a bench: finds what to send, drives the loads, looks for a rate."""

from __future__ import annotations

import json
import os
import platform
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop
from rich.console import Console

from penstock.api.verdicts import timestamp
from penstock.errors import Invalid, Unavailable
from penstock_cli.bench.arrivals import ArrivalProcess, arrival_times
from penstock_cli.bench.connection import LoadTarget
from penstock_cli.bench.figures import OK, LoadFigures
from penstock_cli.bench.inputs import InputOptions, RequestBody, http_request, infer_url, make_requests
from penstock_cli.bench.load import DrivenLoad, LoadSettings, run_closed_loop, run_open_loop
from penstock_cli.bench.rate_search import LatencyObjective, RateTrial, highest_rate, holding_rates, holds, next_rate
from penstock_cli.bench.results import BenchDocument
from penstock_cli.standalone.http import fetch

_PROBED_CONNECTIONS: Final = 32
_PROBED_SECONDS: Final = 2.0
_FIRST_SHARE: Final = 0.5
_MOST_REQUESTS: Final = 5_000_000
"""Of a load: each of them, and what became of it, is kept until its end."""
_PORTS: Final = {"http": 80, "https": 443}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What the user asks for. Times in seconds."""

    url: str
    connections: tuple[int, ...]
    rates: tuple[float, ...]
    p99_milliseconds: float | None
    arrivals: ArrivalProcess
    seconds: float
    warmup: float
    timeout: float
    most_connections: int
    inputs: InputOptions
    body: bytes | None
    headers: Mapping[str, str]
    key: str | None
    ca_file: Path | None
    """Authorities that an `https:` server's certificate may be of; None: those that the system trusts."""
    seed: int


def run_bench(options: BenchOptions) -> BenchDocument:
    """Run all loads.

    Raises:
        Invalid: the URL is none of a model, nothing can be made up for it, or a load is too large to be kept.
        Unavailable: the server does not answer one request with 200; it says how it answered.
    """
    url = infer_url(options.url)
    _check_sizes(options)
    headers = {**options.headers, **({"Authorization": f"Bearer {options.key}"} if options.key else {})}
    trust = _load_trust(options.ca_file) if url.startswith("https:") else None
    with Console(stderr=True).status("Making up requests"):
        bodies = (
            [RequestBody(options.body, {"Content-Type": "application/json"})]
            if options.body is not None
            else _make_requests(url, headers, options.inputs, trust)
        )
    parts = urlsplit(url)
    settings = LoadSettings(
        server=LoadTarget(parts.hostname or "", parts.port or _PORTS[parts.scheme], trust),
        requests=[http_request(url, body, headers) for body in bodies],
        seconds=options.seconds,
        warmup=options.warmup,
        timeout=options.timeout,
        most_connections=options.most_connections,
    )
    with Console(stderr=True).status("Sending one request") as status:
        run = _Run(settings, options, status.update)
        run.probe()
        try:
            run.run_all()
        except KeyboardInterrupt:
            # Minutes of other loads may have been measured.
            if not run.loads:
                raise
            run.interrupted = True
    found = highest_rate(run.trials)
    return BenchDocument(
        url=url,
        when=timestamp(time.time()),
        client=f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, one process",
        input=_describe(bodies, options),
        loads=tuple(run.loads),
        objective_milliseconds=options.p99_milliseconds,
        found_rate=found,
        found_trials=holding_rates(run.trials).count(found or 0.0),
        failures=run.failures,
        interrupted=run.interrupted,
    )


class _Run:
    """The loads so far."""

    def __init__(self, settings: LoadSettings, options: BenchOptions, say: Say) -> None:
        self._settings, self._options, self._say = settings, options, say
        self.loads: list[LoadFigures] = []
        self.trials: list[RateTrial] = []
        self.failures: dict[int, str] = {}
        self.interrupted = False

    def run_all(self) -> None:
        """Every load that was asked for."""
        if self._options.p99_milliseconds is not None:
            self.search(LatencyObjective(self._options.p99_milliseconds))
        for rate in self._options.rates:
            self.run_open(rate)
        if self._options.p99_milliseconds is None and not self._options.rates:
            for count in self._options.connections:
                self.run_closed(count)

    def probe(self) -> None:
        """See that one request is answered.

        Raises:
            Unavailable: it is not.
        """
        once = replace(self._settings, seconds=0.001, warmup=0.0, most_connections=1)
        result = uvloop.run(run_open_loop(once, [0.0], 1.0, lambda _answered, _failed: None))
        if result.figures.statuses.get(OK, 0) != 1:
            status, text = next(iter(result.excerpts.items()), (0, "no answer"))
            raise Unavailable(
                "NotServing",
                f"{self._options.url} answers a request with {status or 'nothing'}: {text or 'no words'}{_hint(text)}",
            )

    def run_closed(self, connections: int) -> LoadFigures:
        """A closed loop."""
        name = f"{connections} connection{'s' if connections != 1 else ''}"
        return self._keep(uvloop.run(run_closed_loop(self._settings, connections, self._watcher(name))))

    def run_open(self, rate: float) -> LoadFigures:
        """An open loop."""
        options = self._options
        seed = options.seed + len(self.loads)
        times = arrival_times(options.arrivals, rate, options.warmup + options.seconds, seed)
        return self._keep(uvloop.run(run_open_loop(self._settings, times, rate, self._watcher(f"{rate:,.0f}/s"))))

    def search(self, objective: LatencyObjective) -> None:
        """Find the highest rate that holds the objective."""
        first = replace(self._settings, seconds=_PROBED_SECONDS)
        probed = uvloop.run(run_closed_loop(first, _PROBED_CONNECTIONS, self._watcher("looking for the capacity")))
        begin = max(1.0, probed.figures.answers_per_second * _FIRST_SHARE)
        while (rate := next_rate(self.trials, begin)) is not None and _is_kept(rate, self._options):
            self.trials.append(RateTrial(rate, holds(self.run_open(rate), objective)))

    def _keep(self, result: DrivenLoad) -> LoadFigures:
        self.loads.append(result.figures)
        for status, text in result.excerpts.items():
            self.failures.setdefault(status, text)
        return result.figures

    def _watcher(self, name: str) -> Callable[[int, int], None]:
        def watch(answered: int, failed: int) -> None:
            self._say(f"{name}: {answered:,} answers" + (f", {failed:,} failed" if failed else "") + " …")

        return watch


def _check_sizes(options: BenchOptions) -> None:
    seconds = options.seconds + options.warmup
    for rate in options.rates:
        if not _is_kept(rate, options):
            raise Invalid(
                "InvalidOption",
                f"--rate {rate:g}: in {seconds:g} s that would be {rate * seconds:,.0f} requests, and {_MOST_REQUESTS:,} of a "
                "load can be kept: give a lower rate, or fewer --seconds",
            )


def _is_kept(rate: float, options: BenchOptions) -> bool:
    """Whether a load's requests fit into memory."""
    return rate * (options.seconds + options.warmup) <= _MOST_REQUESTS


def _hint(words: str) -> str:
    """What may help against a failure that a library tells."""
    if "WRONG_VERSION_NUMBER" in words:
        return ": it speaks no TLS there; write http:// for https://"
    if "CERTIFICATE_VERIFY_FAILED" not in words:
        return ""
    return ": name the server's authority with --ca-file, and the host as its certificate has it"


def _load_trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise Invalid("InvalidCertificate", f"--ca-file {ca_file}: no certificates in PEM form ({error})") from None


def _make_requests(
    url: str, headers: Mapping[str, str], options: InputOptions, trust: ssl.SSLContext | None
) -> list[RequestBody]:
    model = url.removesuffix("/infer")
    try:
        status, content = fetch(model, more=headers, trust=trust)
    except Unavailable as error:
        raise Unavailable("NoMetadata", f"{model} gives no answer: {error.message}{_hint(error.message)}") from None
    if status != OK:
        raise Unavailable("NoMetadata", f"{model} answers {status}: {content[:300].decode(errors='replace')}")
    try:
        document: Any = json.loads(content)
    except ValueError as error:
        raise Unavailable("NoMetadata", f"{model} is not the protocol's metadata: {error}") from None
    return make_requests(document if isinstance(document, dict) else {}, options)


def _describe(bodies: list[RequestBody], options: BenchOptions) -> str:
    kind = "your request" if options.body is not None else "made-up requests"
    form = "bytes" if options.inputs.binary and options.body is None else "JSON"
    return f"{len(bodies)} {kind} of {len(bodies[0].content):,} bytes, tensors as {form}"
