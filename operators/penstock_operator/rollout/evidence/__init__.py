"""What replicas' counts say of a new revision: e-values of harm and of being no worse, valid whenever one looks.

docs/rollouts-evidence.md has the tests, their sources, and the error rates that `make bench ARGS=rollout` measured.
"""
