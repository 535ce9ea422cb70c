"""Reconciles `InferenceDeployment`s: observe, plan, apply, write the status."""
