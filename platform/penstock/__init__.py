"""Penstock's core: resources, decisions and protocols. No Kubernetes, no Ray, no torch, no I/O."""

__version__ = "0.1.0"
