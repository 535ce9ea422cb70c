"""What gRPC's integration tests share: the least HAProxy that speaks HTTP/2 before a replica, models of all datatypes, clients."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from tests.integration.replica_process import save_model
from tests.ports import free_port
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs
from tritonclient.utils import np_to_triton_dtype

from penstock_serving.gateway.haproxy.process import find_haproxy
from penstock_serving.gateway.settings import GatewaySettings

LARGE = [("grpc.max_send_message_length", 1 << 28), ("grpc.max_receive_message_length", 1 << 28)]
ELEMENTS: dict[str, tuple[int, Any]] = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False, True]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 7, 255]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 7, 65535]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 7, 2**32 - 1]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 7, 2**64 - 1]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-128, 0, 127]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-32768, 0, 32767]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), 0, 2**31 - 1]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), 0, 2**63 - 1]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[-1.5, 0.0, 65504.0]], np.float16)),
    "FP32": (TensorProto.FLOAT, np.array([[-1.5, np.inf, 3.4e38]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[-1.5, 0.1, 1.7e308]], np.float64)),
    "BYTES": (TensorProto.STRING, np.array([[b"", b"a word", "für".encode()]], object)),
}
"""An element type of ONNX and values, by datatype."""


def save_echo(path: Path, datatypes: Sequence[str] = tuple(ELEMENTS)) -> Path:
    """A model with an input `in_TYPE` for each datatype, which it gives again as `out_TYPE`."""
    return save_model(
        path,
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in datatypes],
        {f"in_{name}": (ELEMENTS[name][0], ["n", 3]) for name in datatypes},
        {f"out_{name}": (ELEMENTS[name][0], ["n", 3]) for name in datatypes},
    )


@contextlib.contextmanager
def http2(replica: str, folder: Path) -> Iterator[str]:
    """HAProxy before a replica: cleartext HTTP/2 and HTTP/1.1 on one port, all handed on. Gives its address."""
    port = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "global\n  nbthread 1\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        "  http-reuse always\n  option abortonclose\n"
        f"frontend clients\n  bind 127.0.0.1:{port}\n  default_backend replica\n"
        f"backend replica\n  server replica {replica}\n"
    )
    settings = GatewaySettings(secret="-", state_dir=folder)
    process = subprocess.Popen([str(find_haproxy(settings)), "-db", "-f", str(configuration)])
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stub(address: str) -> Iterator[Any]:
    """The generated stub of Triton's client on a channel of its own."""
    with grpc.insecure_channel(address, options=LARGE) as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def triton_inputs(inputs: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    """Inputs for Triton's client. BYTES are arrays of objects."""
    found = []
    for name, values in inputs.items():
        tensor = triton.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        found.append(tensor)
    return found


def raw_request(model: str, inputs: dict[str, np.ndarray[Any, Any]], **more: Any) -> Any:
    """A request with raw contents."""
    tensors = triton_inputs(inputs)
    return messages.ModelInferRequest(
        model_name=model,
        inputs=[each._get_tensor() for each in tensors],
        raw_input_contents=[each._get_content() for each in tensors],
        **more,
    )
