"""The data plane: replicas and the gateway."""
