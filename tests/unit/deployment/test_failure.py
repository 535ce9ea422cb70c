"""What is read from Serve's messages."""

from __future__ import annotations

import pytest
from tests.telling import Telling

from penstock_operator.deployment.failure import start_failure

SERVE = (
    "Failed to update the deployments ['replica'].\nThe deployment failed to start 1 times in a row. Error:\n"
    "\x1b[36mray::ServeReplica:x:replica.initialize_and_get_metadata()\x1b[39m (pid=1, ip=127.0.0.1)\n"
    '  File "app.py", line 90, in start\n    raise ReplicaFailedError(failure)\n'
)
MESSAGES = [
    (
        "a structured failure",
        SERVE
        + 'x.ReplicaFailedError: penstock-failure: {"reason":"ModelNotFound","message":"No file /m/model.onnx."}\n',
        ("ModelNotFound", "No file /m/model.onnx."),
    ),
    (
        "a structured failure with quotes, braces and text behind it",
        'E: penstock-failure: {"reason":"ModelInvalid","message":"a \\"b\\" {c}"} and more }',
        ("ModelInvalid", 'a "b" {c}'),
    ),
    (
        "the last of two structured failures",
        'penstock-failure: {"reason":"ModelInvalid","message":"1"}\npenstock-failure: {"reason":"ModelNotFound","message":"2"}',
        ("ModelNotFound", "2"),
    ),
    (
        "a reason that no condition may carry",
        'penstock-failure: {"reason":"Whatever","message":"m"}',
        ("ReplicaFailed", "m"),
    ),
    (
        "a failed import",
        "Traceback (most recent call last):\n  File \"x\", line 1\nModuleNotFoundError: No module named 'no'\n",
        ("DeployFailed", "ModuleNotFoundError: No module named 'no'"),
    ),
    (
        "the source line of a raise is not taken for the exception",
        "Traceback\n    raise RuntimeError(x)\nRuntimeError: broken\n",
        ("DeployFailed", "RuntimeError: broken"),
    ),
    ("no exception at all", "Something odd.\nThe end.", ("DeployFailed", "The end.")),
    ("no message", "", ("DeployFailed", Telling("Ray Serve no message"))),
    ("a marker with broken JSON", 'penstock-failure: {"reason":', ("DeployFailed", 'penstock-failure: {"reason":')),
]


@pytest.mark.parametrize(("message", "expected"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_failure(message: str, expected: tuple[str, str | Telling]) -> None:
    failure = start_failure(message)
    assert (failure.reason, failure.message) == expected
