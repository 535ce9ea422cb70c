"""LitServe with an ONNX model, with its batching.

Usage: python litserve_model.py MODEL.onnx PORT MAX_BATCH_SIZE BATCH_TIMEOUT_SECONDS
"""

import sys
from typing import Any

import litserve as ls
import numpy as np
import onnxruntime as ort


class Dense(ls.LitAPI):
    """Decodes the protocol's JSON, runs the model on a batch, encodes."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """One row."""
        tensor = request["inputs"][0]
        return np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])[0]

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Rows to a batch."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Run the model."""
        (result,) = self.session.run(None, {"x": x if x.ndim > 1 else x[None]})
        return result

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """A batch to rows."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """An answer."""
        row = output.ravel()
        return {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, len(row)], "data": row.tolist()}]}


if __name__ == "__main__":
    size = int(sys.argv[3])
    api = Dense(max_batch_size=size, batch_timeout=float(sys.argv[4])) if size > 1 else Dense()
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning", num_api_servers=1
    )
