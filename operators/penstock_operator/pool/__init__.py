"""Reconciles `ServingPool`s, and is the one writer of each Ray cluster."""
