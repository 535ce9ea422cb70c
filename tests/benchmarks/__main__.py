"""Runs the benchmarks: all of them, or those named on the command line."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "data-path": "what an answer costs beside a bare uvicorn server and plain Ray Serve",
    "protocols": "what an answer costs by JSON, binary tensors and gRPC",
    "access": "what it costs that the gateway asks who calls",
    "gateway-price": "what the gateway costs beside the least that HAProxy can do, and the replica's own socket",
    "prediction-cache": "what the prediction cache costs and gives, by how many inputs repeat",
    "hostile-clients": "what clients that hold connections and give nothing cost the others",
    "overload": "once, twice and five times the capacity: what is answered in time, refused, and said of when to come again",
    "batcher-arrivals": "when requests are put together, beside ray.serve.batch",
    "hundred-deployments": "the control plane's cost",
    "scaling": "from one replica to four and back; from zero",
    "faults": "a steady load while things are killed and changed",
}


def main() -> int:
    """Run what is asked for."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are:", file=sys.stderr)
        for name, what in BENCHMARKS.items():
            print(f"  {name:20} {what}", file=sys.stderr)
        return 2
    for name in names:
        importlib.import_module(f"tests.benchmarks.{name.replace('-', '_')}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
