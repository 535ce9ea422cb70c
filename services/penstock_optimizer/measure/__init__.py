"""Measurement: processes that load one variant each, and the sessions that take turns among them."""
