"""Inference requests and responses of the Open Inference Protocol v2, read and written."""
