"""The messages of the gRPC services, from `protocol/*.proto` as compiled into `descriptors.binpb` (`make generate`).

They have a pool of their own. Generated modules would share protobuf's one pool with all else in the process, which takes no
second file of a name or a package: a replica whose model brings a client of the same protocol could not start.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

__all__ = ["DecodeError"]


def _read_descriptors() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(
        resources.files(__package__).joinpath("descriptors.binpb").read_bytes()
    ).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL: Final = _read_descriptors()


def message_class(name: str) -> Any:
    """The class of a message by its full name."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))


ServerLiveResponse: Final = message_class("inference.ServerLiveResponse")
ServerReadyResponse: Final = message_class("inference.ServerReadyResponse")
ModelReadyRequest: Final = message_class("inference.ModelReadyRequest")
ModelReadyResponse: Final = message_class("inference.ModelReadyResponse")
ServerMetadataResponse: Final = message_class("inference.ServerMetadataResponse")
ModelMetadataRequest: Final = message_class("inference.ModelMetadataRequest")
ModelMetadataResponse: Final = message_class("inference.ModelMetadataResponse")
ModelInferRequest: Final = message_class("inference.ModelInferRequest")
ModelInferResponse: Final = message_class("inference.ModelInferResponse")
ModelStreamInferResponse: Final = message_class("inference.ModelStreamInferResponse")
ModelConfigRequest: Final = message_class("inference.ModelConfigRequest")
ModelConfigResponse: Final = message_class("inference.ModelConfigResponse")
ModelStatisticsRequest: Final = message_class("inference.ModelStatisticsRequest")
ModelStatisticsResponse: Final = message_class("inference.ModelStatisticsResponse")
RepositoryIndexRequest: Final = message_class("inference.RepositoryIndexRequest")
RepositoryIndexResponse: Final = message_class("inference.RepositoryIndexResponse")
TraceSettingRequest: Final = message_class("inference.TraceSettingRequest")
TraceSettingResponse: Final = message_class("inference.TraceSettingResponse")
HealthCheckRequest: Final = message_class("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse: Final = message_class("grpc.health.v1.HealthCheckResponse")
