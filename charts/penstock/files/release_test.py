"""`helm test`: whether operator, gateways and resources answer. Standard library only; arguments: their two base URLs."""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

DEADLINE_SECONDS = 150
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WANTED = {
    "apikeys",
    "clusteroptimizationprofiles",
    "inferencedeployments",
    "optimizationprofiles",
    "optimizationruns",
    "servingpools",
    "tenantquotas",
}


def resources() -> str | None:
    """What is missing of the resources of penstock.dev that the API server should serve, if anything."""
    token = (ACCOUNT / "token").read_text()
    url = "https://kubernetes.default.svc/apis/penstock.dev/v1alpha1"
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=context) as response:  # noqa: S310 (https, as written)
        found = {each["name"] for each in json.load(response)["resources"]}
    missing = WANTED - found
    return f"not served: {', '.join(sorted(missing))}" if missing else None


def answers(url: str) -> str | None:
    """What a URL answers in place of 200, if anything else. Who signed a gateway's certificate is its clients' to know; nothing secret is asked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=10, context=context) as response:  # noqa: S310 (the chart wrote the URL)
        return None if response.status == HTTPStatus.OK else f"status {response.status}"


def check(name: str, question: Callable[[], str | None], deadline: float) -> bool:
    """Ask until the answer is good; whether it was before the deadline."""
    while True:
        try:
            complaint = question()
        except (OSError, ValueError, KeyError) as error:
            complaint = str(error)
        if complaint is None:
            print(f"ok: {name}", flush=True)
            return True
        if time.monotonic() > deadline:
            print(f"FAILED: {name}: {complaint}", flush=True)
            return False
        time.sleep(1)


def main() -> int:
    """The process's exit status."""
    operator, gateway = sys.argv[1:]
    deadline = time.monotonic() + DEADLINE_SECONDS
    checks = {
        "the API server serves Penstock's resources": resources,
        "an operator is ready": lambda: answers(f"{operator}/readyz"),
        "a gateway is ready": lambda: answers(f"{gateway}/v2/health/ready"),
    }
    found = [check(name, question, deadline) for name, question in checks.items()]
    return 0 if all(found) else 1


sys.exit(main())
