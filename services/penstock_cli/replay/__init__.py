"""A scaling policy, run over a recorded or generated load."""
