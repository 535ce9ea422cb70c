"""PyTriton: Triton's binary with its Python backend, which calls the model in this process.

Usage: python pytriton_model.py MODEL.onnx PORT MAX_QUEUE_DELAY_MICROSECONDS
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
width, out = session.get_inputs()[0].shape[1], session.get_outputs()[0].shape[1]


@batch
def infer(x: np.ndarray) -> list[np.ndarray]:
    """Run the model on a batch."""
    (result,) = session.run(None, {"x": x})
    return [result]


if __name__ == "__main__":
    port = int(sys.argv[2])
    config = TritonConfig(
        http_port=port, http_address="127.0.0.1", grpc_port=port + 1, grpc_address="127.0.0.1", metrics_port=port + 2,
        allow_metrics=False, log_verbose=0,
    )  # fmt: skip
    with Triton(config=config) as triton:
        triton.bind(
            model_name="tiny",
            infer_func=infer,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(width,))],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(out,))],
            config=ModelConfig(
                max_batch_size=32, batcher=DynamicBatcher(max_queue_delay_microseconds=int(sys.argv[3]))
            ),
        )
        triton.serve()
