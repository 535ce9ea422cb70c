"""Reconciles `OptimizationRun`s: observe, plan, apply, write the status; and finds profiles and runs for deployments."""
