"""KServe's Python server with an ONNX model, as its documentation shows a custom predictor.

Usage: python kserve_model.py MODEL.onnx PORT
"""

from __future__ import annotations

import sys
from typing import Any

import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Dense(Model):
    """One session; KServe has no batching of its own in this server."""

    def __init__(self, path: str) -> None:
        super().__init__("tiny")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """Run the model."""
        del headers, response_headers
        (result,) = self.session.run(None, {"x": payload.inputs[0].as_numpy()})
        output = InferOutput(name="y", shape=list(result.shape), datatype="FP32")
        output.set_data_from_numpy(result, binary_data=False)
        return InferResponse(response_id=payload.id or "", model_name="tiny", infer_outputs=[output])


if __name__ == "__main__":
    server = ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1, access_log_format=None)
    server.start([Dense(sys.argv[1])])
