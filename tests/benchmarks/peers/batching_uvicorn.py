"""The strongest prototype: bare uvicorn with a batcher that never waits, and the engine on one worker thread.

What has arrived when the engine is free is a batch, up to 32 rows. No bound on the queue, no deadline.
Usage: python batching_uvicorn.py MODEL.onnx PORT
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn

MOST_ROWS = 32
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
output = session.get_outputs()[0].name
waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
thread = ThreadPoolExecutor(1)
running: list[asyncio.Task[None]] = []


async def work() -> None:
    """Run batches while there are any."""
    loop = asyncio.get_running_loop()
    while waiting:
        batch = [waiting.popleft() for _ in range(min(MOST_ROWS, len(waiting)))]
        joined = np.concatenate([array for array, _ in batch])
        (result,) = await loop.run_in_executor(thread, session.run, None, {name: joined})
        for (_, future), row in zip(batch, result, strict=True):
            if not future.done():
                future.set_result(row[None])
    running.clear()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every POST as an Open Inference Protocol request with one FP32 input of one row."""
    del scope
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    tensor = orjson.loads(body)["inputs"][0]
    array = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    waiting.append((array, future))
    if not running:
        running.append(loop.create_task(work()))
    result = await future
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
