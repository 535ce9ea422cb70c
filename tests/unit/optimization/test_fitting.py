"""What an artifact needs of a machine, and what a machine lacks of it."""

from __future__ import annotations

import pytest
from tests.telling import Telling

from penstock.optimization.fitting import requirement_of, why_unfit
from penstock.optimization.hardware import Gpu, Hardware, HardwareRequirement
from penstock.optimization.recipes import EngineName, EngineSettings, Precision

XEON = Hardware(
    architecture="x86_64", cpu="Xeon", cores=2, instruction_sets=("avx2", "avx_vnni", "avx512_vnni", "amx_bf16")
)
OLD = Hardware(architecture="x86_64", cpu="Old", cores=2, instruction_sets=("avx2",))
GRACE = Hardware(architecture="aarch64", cpu="Grace", cores=2, instruction_sets=("asimd", "asimddp", "bf16"))
GPU = XEON.model_copy(update={"gpus": (Gpu(name="H200", memory_bytes=1),)})


@pytest.mark.parametrize(
    ("hardware", "engine", "weights", "expected"),
    [
        pytest.param(XEON, EngineName.ONNX_RUNTIME, "fp32", (), id="fp32 needs the architecture only"),
        pytest.param(XEON, EngineName.OPENVINO, "int8", ("avx512_vnni",), id="int8 needs the dot product used there"),
        pytest.param(OLD, EngineName.OPENVINO, "int8", (), id="int8 measured without one needs none"),
        pytest.param(GRACE, EngineName.OPENVINO, "int8", ("asimddp",), id="int8 on Arm needs Arm's"),
        pytest.param(OLD, EngineName.TORCH_EXPORT, "fp32", ("avx2",), id="machine code needs all"),
    ],
)
def test_what_an_artifact_needs(
    hardware: Hardware, engine: EngineName, weights: str, expected: tuple[str, ...]
) -> None:
    needed = requirement_of(hardware, EngineSettings(name=engine), weights)
    assert needed == HardwareRequirement(architecture=hardware.architecture, instruction_sets=expected)
    assert why_unfit(needed, hardware) is None, "where it was made it fits"


def test_bf16_needs_bf16_and_a_gpu_engine_its_gpu() -> None:
    bf16 = EngineSettings(name=EngineName.OPENVINO, precision=Precision.BF16)
    assert requirement_of(XEON, bf16, "fp32").instruction_sets == ("amx_bf16",)
    assert requirement_of(GPU, EngineSettings(name=EngineName.ONNX_RUNTIME_CUDA), "fp16").gpu == "H200"


@pytest.mark.parametrize(
    ("requirement", "facts"),
    [
        (HardwareRequirement(architecture="x86_64", instruction_sets=("avx2",)), None),
        (HardwareRequirement(architecture="aarch64"), "aarch64 x86_64"),
        (
            HardwareRequirement(architecture="x86_64", instruction_sets=("avx2", "avx512_vnni")),
            "instruction sets avx512_vnni Old",
        ),
        (
            HardwareRequirement(architecture="x86_64", gpu="H200"),
            "GPU H200 none",
        ),
    ],
    ids=["all is there", "another architecture", "an instruction set is missing", "the GPU is missing"],
)
def test_what_a_machine_lacks(requirement: HardwareRequirement, facts: str | None) -> None:
    assert why_unfit(requirement, OLD) == (None if facts is None else Telling(facts))
