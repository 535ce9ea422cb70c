"""Judges a new revision beside the one before it, and says what follows.

`machine.judge_rollout` is what a deployment's plan asks; `evidence` says what replicas' counts show.
"""
