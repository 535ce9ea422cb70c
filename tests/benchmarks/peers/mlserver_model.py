"""MLServer with an ONNX model in a custom runtime, without and with adaptive batching.

Usage: python mlserver_model.py MODEL.onnx PORT [MAX_BATCH_SIZE MAX_BATCH_SECONDS]
It writes the settings that MLServer wants beside the model, and becomes `mlserver start`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Dense(MLModel):
    """One session."""

    async def load(self) -> bool:
        """Load the model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model."""
        (result,) = self.session.run(None, {"x": NumpyCodec.decode_input(payload.inputs[0])})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", result)])


def main() -> None:
    """Write the settings, and start."""
    model, port, *batching = sys.argv[1:]
    folder = Path(model).parent / f"mlserver-{port}"
    folder.mkdir(parents=True, exist_ok=True)
    server = {
        "host": "127.0.0.1", "http_port": int(port), "grpc_port": int(port) + 1, "metrics_port": int(port) + 2,
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    settings: dict[str, object] = {
        "name": "tiny", "implementation": "mlserver_model.Dense", "parameters": {"uri": str(Path(model).absolute())},
    }  # fmt: skip
    if batching:
        settings |= {"max_batch_size": int(batching[0]), "max_batch_time": float(batching[1])}
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(settings))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])


if __name__ == "__main__":
    main()
