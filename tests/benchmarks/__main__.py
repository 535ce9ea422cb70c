"""Runs the benchmarks: all of them, or those named on the command line; after one's name may stand its options."""

from __future__ import annotations

import importlib
import signal
import sys

BENCHMARKS = {
    "data-path": "what an answer costs beside a bare uvicorn server and plain Ray Serve",
    "protocols": "what an answer costs by JSON, binary tensors and gRPC",
    "access": "what it costs that the gateway asks who calls",
    "gateway-price": "what the gateway costs beside the least that HAProxy can do, and the replica's own socket",
    "shares": "which shares of requests revisions get, by what was declared and who is faster, and what a lot costs",
    "prediction-cache": "what the prediction cache costs and gives, by how many inputs repeat",
    "hostile-clients": "what clients that hold connections and give nothing cost the others",
    "tracing": "what traces and metrics cost an answer",
    "shadowing": "what it costs clients that samples of their requests are shown to another revision",
    "endurance": "a million requests while replicas and a gateway are exchanged: failed, wrong, and memory's slope",
    "overload": "once, twice and five times the capacity: what is answered in time, refused, and said of when to come again",
    "batcher-arrivals": "when requests are put together, beside ray.serve.batch",
    "hundred-deployments": "the control plane's cost",
    "cost": "whether what models are told to have used is what the kernel counted",
    "rollout": "how often judged rollouts err and how soon they decide: thousands, simulated",
    "real-rollouts": "judged rollouts on real parts: good candidates, each kind of bad one, operators and replicas killed",
    "scaling": "from one replica to four and back; from zero",
    "scaling-real": "the simulator of scaling held against a real run, and what starts take",
    "scaling-policies": "scaling policies on six loads, simulated: Penstock's, Serve's, Knative's and Kubernetes'",
    "faults": "a steady load while things are killed and changed",
}
_WITH_OPTIONS = ("endurance", "gateway-price", "tracing", "hostile-clients", "real-rollouts", "rollout")


def main() -> int:
    """Run what is asked for."""
    # A benchmark that is told to end ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    given = sys.argv[1:]
    at = next((number for number, each in enumerate(given) if each.startswith("-")), len(given))
    names, options = given[:at] or list(BENCHMARKS), given[at:]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are:", file=sys.stderr)
        for name, what in BENCHMARKS.items():
            print(f"  {name:20} {what}", file=sys.stderr)
        return 2
    if options and (len(names) > 1 or names[0] not in _WITH_OPTIONS):
        print(f"options are for one benchmark at a time, and for {', '.join(_WITH_OPTIONS)} alone", file=sys.stderr)
        return 2
    statuses = [0]
    for name in names:
        run = importlib.import_module(f"tests.benchmarks.{name.replace('-', '_')}").main
        # Most only measure; one that judges, too, says so by what it returns.
        statuses.append((run(options) if name in _WITH_OPTIONS else run()) or 0)
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
