"""The OpenAPI document that replicas and gateways serve."""
