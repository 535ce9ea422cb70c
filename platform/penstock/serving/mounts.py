"""Where a pool's pods find credentials, claims and the node's model cache: the pool mounts them, replicas read them."""

from __future__ import annotations

from typing import Final

CREDENTIALS_ROOT: Final = "/var/run/secrets/penstock"
"""A folder for each Secret of the pool's `credentials`, by its name, with a file for each key. Absent Secrets: none."""
CLAIMS_ROOT: Final = "/mnt/penstock/claims"
"""A folder for each PersistentVolumeClaim of the pool's `modelClaims`, by its name: what `pvc://NAME/path` reads."""
CACHE_ROOT: Final = "/var/cache/penstock/models"
"""The node's folder of fetched models, shared by all replicas on it."""

CACHE_VARIABLE: Final = "PENSTOCK_MODEL_CACHE"
"""Environment variable with the cache's folder. Unset: a folder in the user's own cache."""
CACHE_BYTES_VARIABLE: Final = "PENSTOCK_MODEL_CACHE_BYTES"
"""Environment variable with the bytes that the cache may hold. Unset: as many as the disk has."""
CREDENTIALS_VARIABLE: Final = "PENSTOCK_CREDENTIALS_ROOT"
"""Environment variable with another folder than `CREDENTIALS_ROOT`, where there is no pod."""
CLAIMS_VARIABLE: Final = "PENSTOCK_CLAIMS_ROOT"
"""Environment variable with another folder than `CLAIMS_ROOT`, where there is no pod."""
TRUSTED_ROOT: Final = "/etc/penstock/trusted"
"""Where the ConfigMap of private authorities is mounted, one file of it."""
TRUSTED_FILE: Final = "ca.crt"
"""That file, whatever its key in the ConfigMap."""
TRUSTED_VARIABLE: Final = "PENSTOCK_TRUSTED_CA"
"""Environment variable with the path of certificates (PEM) that are trusted beside the machine's."""
