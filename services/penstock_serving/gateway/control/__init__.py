"""The control API, by which replicas and operator tell the gateway what is there and what is wanted."""
