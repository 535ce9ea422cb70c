"""Clients of what lies outside Kubernetes: Ray, and the gateways."""
