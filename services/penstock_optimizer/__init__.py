"""Builds models. The only part that needs torch, and nothing that serves imports it."""
