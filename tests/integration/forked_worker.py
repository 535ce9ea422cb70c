"""A worker of Ray, by the command that the raylet has for it, in a process with the imports of Serve's actors."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from pathlib import Path

import ray._private.workers.setup_worker as setup
import ray.actor
from ray import ActorClassID, _raylet
from ray._private.runtime_env.context import RuntimeEnvContext

_IMPORTED = ("ray.serve._private.controller", "ray.serve._private.replica", "penstock_serving.replica.app")


class _Drawn:
    """Ids of classes that are actors, drawn without Ray's generator: once it was used, all that are forked would draw alike."""

    @staticmethod
    def from_random() -> ActorClassID:
        return ActorClassID(os.urandom(ActorClassID.size()))


ray.actor.ActorClassID = _Drawn
for each in _IMPORTED:
    importlib.import_module(each)
ray.actor.ActorClassID = ActorClassID
# The title that Ray gives a worker takes the place of its arguments and environment, as they are now.
_raylet.setproctitle("ray::imported")


def main() -> int:
    """Do what `setup_worker.py` and `default_worker.py` do; another command is run as it is."""
    command = sys.argv[1:]
    os.setpgid(0, 0)
    known, arguments = setup.parser.parse_known_args(command[2:])
    context = RuntimeEnvContext.deserialize(known.serialized_runtime_env_context or "{}")
    plain = [Path(word).name for word in (command[1], arguments[0])] == ["setup_worker.py", "default_worker.py"]
    if not plain or context.command_prefix or context.py_executable != sys.executable:
        os.execv(command[0], command)
    os.environ.update(context.env_vars)
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).parent)
    runpy.run_path(arguments[0], run_name="__main__")
    return 0
