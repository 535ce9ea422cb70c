"""API keys: which there are, whether they open anything, and whose deployments they concern."""
