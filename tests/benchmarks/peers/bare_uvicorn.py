"""The baseline: uvicorn (uvloop, httptools), raw ASGI, orjson and ONNX Runtime with one thread; no batching.

What a person writes who wants the fastest plain Python server for one model.
Usage: python bare_uvicorn.py MODEL.onnx PORT
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
output = session.get_outputs()[0].name


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every POST as an Open Inference Protocol request with one FP32 input."""
    del scope
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    tensor = orjson.loads(body)["inputs"][0]
    array = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    (result,) = session.run(None, {name: array})
    answer = orjson.dumps(
        {
            "model_name": "tiny",
            "outputs": [
                {"name": output, "datatype": "FP32", "shape": result.shape, "data": result.ravel()},
            ],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]})  # fmt: skip
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[2]), loop="uvloop", http="httptools",
        access_log=False, log_level="warning", lifespan="off", interface="asgi3",
    )  # fmt: skip
