"""An optimized model is served only where its signature, its files and its hardware fit; each refusal says which."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from onnx import TensorProto, helper
from tests.integration.replica_process import linear_weights, save_linear
from tests.telling import Telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.fitting import requirement_of
from penstock.optimization.hardware import HardwareRequirement
from penstock.optimization.recipes import EngineName, EngineSettings, Recipe
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import (
    DataType,
    ModelFile,
    ModelFormat,
    ModelManifest,
    Optimization,
    Signature,
    TensorSpec,
)
from penstock_runtime.engines.openvino import OpenVinoEngine
from penstock_runtime.hardware import probe
from penstock_runtime.signing import make_keys, sign
from penstock_serving.replica.model.loading import load

HERE = probe()
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 64)),),
    outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 10)),),
)
ENGINE = EngineSettings(name=EngineName.OPENVINO, threads=1)


@dataclass(frozen=True)
class Artifact:
    """A signed artifact, and the key that signed it."""

    folder: Path
    private: Path
    public: str

    def settings(self, *, trusted: bool = True, digest: str | None = None) -> ReplicaSettings:
        return ReplicaSettings(
            namespace="default", model="tiny", revision="r", replica_id="x", storage_uri=self.folder.as_uri(),
            digest=digest, engine_threads=2, trusted_keys=(self.public,) if trusted else (),
        )  # fmt: skip

    def rewrite(self, **update: object) -> None:
        path = self.folder / "manifest.json"
        manifest = ModelManifest.model_validate_json(path.read_bytes())
        path.write_text(manifest.model_copy(update=update).model_dump_json())

    def belong(self, namespace: str, name: str = "tiny") -> None:
        manifest = ModelManifest.model_validate_json((self.folder / "manifest.json").read_bytes())
        assert manifest.optimization is not None
        self.rewrite(name=name, optimization=manifest.optimization.model_copy(update={"namespace": namespace}))
        sign(self.folder, self.private)

    def require(self, requirement: HardwareRequirement) -> None:
        manifest = ModelManifest.model_validate_json((self.folder / "manifest.json").read_bytes())
        assert manifest.optimization is not None
        self.rewrite(optimization=manifest.optimization.model_copy(update={"requires": requirement}))
        sign(self.folder, self.private)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "artifact"
    folder.mkdir()
    model = ov.Core().read_model(str(save_linear(tmp_path / "model.onnx")))
    ov.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    files = {
        each.name: ModelFile(sha256=hashlib.sha256(each.read_bytes()).hexdigest(), size_bytes=each.stat().st_size)
        for each in folder.iterdir()
    }
    made = Optimization(
        profile="ClusterOptimizationProfile/balanced",
        profile_digest="sha256:0",
        source_digest="sha256:0",
        recipe=Recipe(engine=ENGINE),
        library_versions={},
        hardware=HERE,
        requires=requirement_of(HERE, ENGINE, "int8"),
    )
    manifest = ModelManifest(
        name="tiny", format=ModelFormat.OPENVINO, entrypoint="model.xml", signature=SIGNATURE, files=files,
        engine=ENGINE, optimization=made,
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    private = tmp_path / "key.pem"
    public = make_keys(private)
    sign(folder, private)
    return Artifact(folder, private, public)


def test_one_that_fits_is_served_by_its_engine_with_its_own_threads(artifact: Artifact) -> None:
    loaded = load(artifact.settings())
    assert isinstance(loaded.engine, OpenVinoEngine)
    assert loaded.engine.read_hints()["INFERENCE_NUM_THREADS"] == "1", (
        "it was measured with one, whatever the replica has"
    )
    x = np.ones((2, 64), np.float32)
    np.testing.assert_allclose(loaded.engine.run({"x": x})["y"], x @ linear_weights(), atol=1e-4)


def test_one_that_was_signed_for_this_very_deployment_is_served(artifact: Artifact) -> None:
    artifact.belong("default")
    assert load(artifact.settings().model_copy(update={"require_signature": True})).digest


def no_signature(artifact: Artifact) -> ReplicaSettings:
    (artifact.folder / "model.sig").unlink()
    return artifact.settings()


def no_trusted_key(artifact: Artifact) -> ReplicaSettings:
    return artifact.settings(trusted=False)


def a_key_of_another(artifact: Artifact) -> ReplicaSettings:
    other = make_keys(artifact.private.with_name("other.pem"))
    return artifact.settings().model_copy(update={"trusted_keys": (other,)})


def an_added_file(artifact: Artifact) -> ReplicaSettings:
    (artifact.folder / "extra").write_text("")
    return artifact.settings()


def a_changed_manifest(artifact: Artifact) -> ReplicaSettings:
    artifact.rewrite(name="other")
    return artifact.settings()


def a_signature_of_nonsense(artifact: Artifact) -> ReplicaSettings:
    (artifact.folder / "model.sig").write_text("{}")
    return artifact.settings()


def a_changed_file(artifact: Artifact) -> ReplicaSettings:
    with (artifact.folder / "model.bin").open("ab") as file:
        file.write(b"x")
    return artifact.settings()


def another_digest_asked(artifact: Artifact) -> ReplicaSettings:
    return artifact.settings(digest="sha256:" + "0" * 64)


def another_architecture(artifact: Artifact) -> ReplicaSettings:
    artifact.require(HardwareRequirement(architecture="riscv64"))
    return artifact.settings()


def an_instruction_set_that_is_not_here(artifact: Artifact) -> ReplicaSettings:
    artifact.require(HardwareRequirement(architecture=HERE.architecture, instruction_sets=("sve2p1",)))
    return artifact.settings()


def a_gpu_that_is_not_here(artifact: Artifact) -> ReplicaSettings:
    artifact.require(HardwareRequirement(architecture=HERE.architecture, gpu="Imaginary 9000"))
    return artifact.settings()


def an_engine_that_is_not_installed(artifact: Artifact) -> ReplicaSettings:
    artifact.rewrite(
        engine=EngineSettings(name=EngineName.ONNX_RUNTIME_CUDA), format=ModelFormat.ONNX, entrypoint="model.onnx"
    )
    model = save_linear(artifact.folder / "model.onnx")
    file = ModelFile(sha256=hashlib.sha256(model.read_bytes()).hexdigest(), size_bytes=model.stat().st_size)
    artifact.rewrite(files={"model.onnx": file})
    sign(artifact.folder, artifact.private)
    return artifact.settings()


def an_engine_that_loads_another_format(artifact: Artifact) -> ReplicaSettings:
    artifact.rewrite(engine=EngineSettings(name=EngineName.ONNX_RUNTIME))
    sign(artifact.folder, artifact.private)
    return artifact.settings()


def a_program_of_torch_that_nobody_signed(artifact: Artifact) -> ReplicaSettings:
    program = artifact.folder.with_name("program.pt2")
    program.write_bytes(b"code")
    update = {"require_signature": False, "storage_uri": program.as_uri(), "model_format": ModelFormat.TORCH_EXPORT}
    return artifact.settings().model_copy(update=update)


def machine_code_that_nobody_signed(artifact: Artifact) -> ReplicaSettings:
    program = artifact.folder / "model.pt2"
    program.write_bytes(b"code")
    artifact.rewrite(
        optimization=None, engine=EngineSettings(name=EngineName.TORCH_EXPORT), format=ModelFormat.TORCH_EXPORT,
        entrypoint="model.pt2", files={"model.pt2": ModelFile(sha256=hashlib.sha256(b"code").hexdigest(), size_bytes=4)},
    )  # fmt: skip
    return artifact.settings().model_copy(update={"require_signature": False})


def an_option_that_names_files_of_the_node(artifact: Artifact) -> ReplicaSettings:
    engine = EngineSettings(name=EngineName.ONNX_RUNTIME_TENSORRT, options={"engineCache": "/tmp/plans"})
    artifact.rewrite(optimization=None, engine=engine)
    return artifact.settings().model_copy(update={"require_signature": False})


def a_plan_for_an_accelerator_that_nobody_signed(artifact: Artifact) -> ReplicaSettings:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="plan", embed_mode=1)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    body = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:])).SerializeToString()
    (artifact.folder / "model.onnx").write_bytes(body)
    artifact.rewrite(
        optimization=None, engine=EngineSettings(name=EngineName.ONNX_RUNTIME_TENSORRT), format=ModelFormat.ONNX,
        entrypoint="model.onnx",
        files={"model.onnx": ModelFile(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body))},
    )  # fmt: skip
    return artifact.settings().model_copy(update={"require_signature": False})


def a_model_of_the_users_own_where_a_signed_one_is_asked_for(artifact: Artifact) -> ReplicaSettings:
    artifact.rewrite(optimization=None)
    (artifact.folder / "model.sig").unlink()
    return artifact.settings().model_copy(update={"require_signature": True})


def a_lone_file_where_a_signed_model_is_asked_for(artifact: Artifact) -> ReplicaSettings:
    model = save_linear(artifact.folder.with_name("lone.onnx"))
    return artifact.settings().model_copy(update={"require_signature": True, "storage_uri": model.as_uri()})


def no_key_where_a_signed_model_is_asked_for(artifact: Artifact) -> ReplicaSettings:
    artifact.rewrite(optimization=None)
    return artifact.settings(trusted=False).model_copy(update={"require_signature": True})


def one_that_was_signed_for_another_namespace(artifact: Artifact) -> ReplicaSettings:
    artifact.belong("other")
    return artifact.settings().model_copy(update={"require_signature": True})


def one_that_was_signed_for_another_model(artifact: Artifact) -> ReplicaSettings:
    artifact.belong("default", "small")
    return artifact.settings().model_copy(update={"require_signature": True})


def one_that_was_signed_for_nobody(artifact: Artifact) -> ReplicaSettings:
    return artifact.settings().model_copy(update={"require_signature": True})


def a_model_for_other_machines(artifact: Artifact) -> ReplicaSettings:
    artifact.rewrite(format=ModelFormat.LITERT)
    return artifact.settings()


def weights_that_come_with_code(artifact: Artifact) -> ReplicaSettings:
    artifact.rewrite(format=ModelFormat.SAFETENSORS)
    return artifact.settings()


@pytest.mark.parametrize(
    ("arrange", "reason", "facts"),
    [
        (no_signature, Reason.SIGNATURE_MISSING, "no model.sig"),
        (no_trusted_key, Reason.KEY_NOT_TRUSTED, "no key trusted"),
        (a_key_of_another, Reason.KEY_NOT_TRUSTED, "add key trusted"),
        (an_added_file, Reason.SIGNATURE_INVALID, "extra"),
        (a_changed_manifest, Reason.SIGNATURE_INVALID, "manifest.json"),
        (a_signature_of_nonsense, Reason.SIGNATURE_INVALID, "model.sig not signature"),
        (a_changed_file, Reason.DIGEST_MISMATCH, "changed copied"),
        (another_digest_asked, Reason.DIGEST_MISMATCH, "sha256:"),
        (another_architecture, Reason.HARDWARE_MISMATCH, "riscv64"),
        (an_instruction_set_that_is_not_here, Reason.HARDWARE_MISMATCH, "sve2p1"),
        (a_gpu_that_is_not_here, Reason.HARDWARE_MISMATCH, "GPU Imaginary 9000"),
        (an_engine_that_is_not_installed, Reason.ENGINE_UNAVAILABLE, "onnxruntime-gpu"),
        (an_engine_that_loads_another_format, Reason.MODEL_INVALID, "openvino no"),
        (a_program_of_torch_that_nobody_signed, Reason.SIGNATURE_MISSING, "code optimizationProfileRef"),
        (machine_code_that_nobody_signed, Reason.SIGNATURE_MISSING, "code optimizationProfileRef"),
        (a_plan_for_an_accelerator_that_nobody_signed, Reason.MODEL_INVALID, "machine code signed"),
        (an_option_that_names_files_of_the_node, Reason.MODEL_INVALID, "option engineCache"),
        (a_model_of_the_users_own_where_a_signed_one_is_asked_for, Reason.SIGNATURE_MISSING, "no model.sig"),
        (a_lone_file_where_a_signed_model_is_asked_for, Reason.SIGNATURE_MISSING, "delete OptimizationRun"),
        (no_key_where_a_signed_model_is_asked_for, Reason.KEY_NOT_TRUSTED, "no key trusted"),
        (one_that_was_signed_for_another_namespace, Reason.SIGNATURE_INVALID, "other/tiny default/tiny"),
        (one_that_was_signed_for_another_model, Reason.SIGNATURE_INVALID, "default/small default/tiny"),
        (one_that_was_signed_for_nobody, Reason.SIGNATURE_INVALID, "namespace/tiny default/tiny"),
        (weights_that_come_with_code, Reason.MODEL_INVALID, "safetensors"),
        (a_model_for_other_machines, Reason.MODEL_INVALID, "litert onnx openvino"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "",
)
def test_one_that_does_not_fit_is_refused_with_the_reason(
    artifact: Artifact, arrange: Callable[[Artifact], ReplicaSettings], reason: Reason, facts: str
) -> None:
    with pytest.raises(Invalid) as caught:
        load(arrange(artifact))
    assert (caught.value.reason, caught.value.message) == (reason, Telling(facts))


def test_checking_a_signature_leaves_its_libraries_out_of_the_replica(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"weights")
    key = make_keys(tmp_path / "key.pem")
    sign(folder, tmp_path / "key.pem")
    script = (
        "import sys; from pathlib import Path; from penstock_runtime.verifying import verify_in_child\n"
        "verify_in_child(Path(sys.argv[1]), [sys.argv[2]])\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('model_signing', 'sigstore')])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(folder), key], capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stdout.strip() == "[]"
