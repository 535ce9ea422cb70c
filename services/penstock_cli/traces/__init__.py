"""Traces as the command line reads and draws them."""
