"""The services of gRPC, by their names."""

from __future__ import annotations

from typing import Final

INFERENCE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = "grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
SERVICES: Final = (INFERENCE, HEALTH, REFLECTION, REFLECTION_ALPHA)
