"""What a replica tells of itself and of its model: the documents that every front has in the form of its protocol."""

from __future__ import annotations

from typing import Final

from penstock.protocol.repository import IndexEntry, write_index
from penstock.protocol.server import server_metadata, trace_settings
from penstock.serving.control import ReplicaSettings
from penstock.serving.settings import InPlaceSettings
from penstock_serving.replica.codec import responses
from penstock_serving.replica.codec.configuration import model_configuration
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.service import InferenceService

LEAVING: Final = "this replica is leaving"


class ReplicaDocuments:
    """Writes them, in JSON of the protocol's REST form."""

    def __init__(self, settings: ReplicaSettings, model: LoadedModel, service: InferenceService) -> None:
        self._settings = settings
        self._in_place: InPlaceSettings = settings
        self._signature = model.signature
        self._platform = model.engine.platform
        self._joining = model.trial.joining
        self._service = service

    def reconfigure(self, settings: InPlaceSettings) -> None:
        """Take other settings."""
        self._in_place = settings

    def server_metadata(self) -> bytes:
        """The software."""
        return server_metadata()

    def model_metadata(self) -> bytes:
        """What the model takes and gives."""
        return responses.model_metadata(
            self._settings.model, self._settings.version, self._platform, self._signature, self._service.joining
        )

    def model_configuration(self) -> bytes:
        """How its requests become batches, as that is set now."""
        return model_configuration(
            (self._settings.model, self._settings.version, self._platform),
            self._signature,
            self._joining if self._service.joining.joined else None,
            self._in_place,
        )

    def model_statistics(self) -> bytes:
        """What was counted, and what explains it."""
        return self._service.statistics(self._settings.model, self._settings.version)

    def repository_index(self, *, ready_only: bool) -> bytes:
        """The one model that is here."""
        ready = self._service.ready
        entry = IndexEntry(self._settings.model, self._settings.version, ready, "" if ready else LEAVING)
        return write_index([entry], ready_only=ready_only)

    def trace_settings(self) -> bytes:
        """Whether spans go anywhere."""
        return trace_settings(exported=self._service.exports_traces)
