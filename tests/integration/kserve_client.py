"""kserve's REST client, in an environment of its own: it wants older releases of protobuf and psutil than Penstock has.

Run by `test_clients.py` with kserve's release after `--with`; asks a model `tiny` at the URL given and writes what it got, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str) -> None:
    """Ask for everything that the client can ask for by this protocol."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    rows = np.arange(128, dtype=np.float32).reshape(2, 64) / 100
    found = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, "tiny"),
    }
    for binary in (False, True):
        tensor = InferInput("x", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        request = InferRequest("tiny", [tensor], request_id="42")
        answer = await client.infer(url, request, model_name="tiny")
        (output,) = answer.outputs
        found["binary" if binary else "JSON"] = [answer.id, output.as_numpy().tolist()]
    try:
        await client.infer(url, InferRequest("tiny", []), model_name="tiny")
    except Exception as error:  # noqa: BLE001 -- whatever the client makes of a refusal
        found["refusal"] = str(error)
    json.dump(found, sys.stdout)


asyncio.run(main(sys.argv[1]))
