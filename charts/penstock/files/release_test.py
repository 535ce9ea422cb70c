"""`helm test`: whether operator, gateways and resources answer. Standard library only; arguments: their two base URLs."""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
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


def resources():
    """The resources of penstock.dev that the API server serves."""
    token = (ACCOUNT / "token").read_text()
    url = "https://kubernetes.default.svc/apis/penstock.dev/v1alpha1"
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=context) as response:
        found = {each["name"] for each in json.load(response)["resources"]}
    missing = WANTED - found
    return f"not served: {', '.join(sorted(missing))}" if missing else None


def answers(url):
    """Whether a URL answers 200. Who signed a gateway's certificate is its clients' to know; nothing secret is asked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=10, context=context) as response:
        return None if response.status == 200 else f"status {response.status}"


def check(name, question, deadline):
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


def main():
    """The process's exit status."""
    operator, gateway = sys.argv[1:]
    deadline = time.monotonic() + DEADLINE_SECONDS
    checks = {
        "the API server serves Penstock's resources": resources,
        "an operator is ready": lambda: answers(f"{operator}/readyz"),
        "a gateway is ready": lambda: answers(f"{gateway}/v2/health/ready"),
    }
    return 0 if all([check(name, question, deadline) for name, question in checks.items()]) else 1


sys.exit(main())
