"""The same model as Ray Serve's documentation shows it: one deployment behind Serve's default proxy."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from ray import serve
from ray.serve import Application
from starlette.requests import Request


@serve.deployment(name="plain", max_ongoing_requests=256)
class Plain:
    """Decodes JSON, runs the model, returns JSON."""

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    async def __call__(self, request: Request) -> dict[str, object]:
        tensor = (await request.json())["inputs"][0]
        array = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        (result,) = self.session.run(None, {self.name: array})
        return {"outputs": [{"datatype": "FP32", "shape": list(result.shape), "data": result.ravel().tolist()}]}


def app(args: dict[str, str]) -> Application:
    """Builder for Serve's declarative API."""
    return Plain.bind(args["model"])
