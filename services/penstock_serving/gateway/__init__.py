"""The gateway: HAProxy on the data path, and the agent that drives it."""
