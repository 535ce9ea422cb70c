"""A real replica process serves a quantized OpenVINO model by HTTP."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13
from tests.integration.replica_process import document, linear_weights, replica

from penstock.serving.settings import BatchingSettings


def save_int8(folder: Path) -> Path:
    """x[n, 64] times weights kept in int8 with one scale: y[n, 10]."""
    weights = linear_weights()
    scale = np.float32(np.abs(weights).max() / 127)
    x = opset13.parameter([-1, 64], np.float32, name="x")
    kept = opset13.constant(np.round(weights / scale).astype(np.int8))
    whole = opset13.multiply(opset13.convert(kept, "f32"), opset13.constant(scale))
    product = opset13.matmul(x, whole, transpose_a=False, transpose_b=False)
    x.output(0).set_names({"x"})
    product.output(0).set_names({"y"})
    ov.save_model(ov.Model([product], [x], "int8"), str(folder / "model.xml"), compress_to_fp16=False)
    return folder


def test_an_int8_openvino_model_answers_by_http_in_batches_of_any_size(tmp_path: Path) -> None:
    folder = save_int8(tmp_path)
    assert (folder / "model.bin").stat().st_size < 1000, "640 weights of one byte"
    with replica(folder, model_format="openvino", batching=BatchingSettings(max_batch_size=8)) as serving:
        for rows in (1, 5):
            x = np.random.default_rng(rows).normal(size=(rows, 64)).astype(np.float32)
            answer = serving.infer(document(x)).json()["outputs"][0]
            assert answer["shape"] == [rows, 10]
            np.testing.assert_allclose(np.reshape(answer["data"], (rows, 10)), x @ linear_weights(), atol=0.3)
        lines = "".join(
            f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
            for name in ("model.bin", "model.xml")
        )
        assert serving.event.digest == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
