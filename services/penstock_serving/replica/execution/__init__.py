"""Runs of the engine: when, on which thread, for which requests together."""
