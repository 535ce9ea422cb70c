"""In a pod the signing key is in the driver's memory alone: no other process of the same user can read it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.api.optimization import OptimizationProfileSpec
from penstock.errors import Invalid
from penstock.optimization.progress import SIGNING_KEY_VARIABLE, OptimizationRequest
from penstock.optimization.variants import SourceRequest
from penstock_optimizer.publishing.signing_key import secrets_of, with_key
from penstock_runtime.signing import make_keys

REQUEST = OptimizationRequest(
    model=SourceRequest(path="m"), name="m", profile="p", spec=OptimizationProfileSpec(), store="s", workspace="w",
    signing_key="",
)  # fmt: skip
DRIVER = """
import ctypes, os, sys
from pathlib import Path
from penstock.optimization.progress import OptimizationRequest
from penstock_optimizer.publishing.signing_key import with_key
from penstock_runtime.signing import public_key
def looked(driver):
    found = []
    for place in ("environ", "mem", *(f"fd/{number}" for number in range(64))):
        try:
            file = os.open(f"/proc/{driver}/{place}", os.O_RDONLY | os.O_NONBLOCK)  # some are pipes
            if place == "mem" or b"PRIVATE KEY" in os.read(file, 1 << 20): found.append(place)
        except OSError:
            continue
    return ",".join(found)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # as after exec, which a change of user undoes
driver, (asks, ask), (answers, answer) = os.getpid(), os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(ask)
    while os.read(asks, 1):
        os.write(answer, looked(driver).encode() + b";")
    os._exit(0)
def told():
    os.write(ask, b"?")
    return os.read(answers, 1000).decode()
before = told()
request = with_key(OptimizationRequest.model_validate_json(sys.argv[1]))
key = public_key(Path(request.signing_key))
print(f"{before} {told()} {key}", end="", flush=True)
os.close(ask)
os._exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_no_other_process_of_the_user_reads_it(tmp_path: Path) -> None:
    """As in a pod, whose processes are one user's and have no capabilities."""
    public = make_keys(tmp_path / "key.pem")
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, REQUEST.model_dump_json()],
        env={**os.environ, SIGNING_KEY_VARIABLE: (tmp_path / "key.pem").read_text()},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    before, after, signs_as = ran.stdout.split(" ", 2)
    assert "environ" in before, f"the neighbour can look: {ran.stderr}"
    assert (after, signs_as) == (";", public), "once the driver has taken the key, the neighbour finds it nowhere"


def test_a_users_own_file_is_hidden_from_what_opens_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, "a key")
    request = with_key(REQUEST.model_copy(update={"signing_key": "/home/key.pem"}))
    assert secrets_of(request) == (Path("/home/key.pem"),)
    assert SIGNING_KEY_VARIABLE not in os.environ, "what is not used is not handed on either"


def test_without_any_key_the_search_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIGNING_KEY_VARIABLE, raising=False)
    with pytest.raises(Invalid, match="holds none"):
        with_key(REQUEST)
