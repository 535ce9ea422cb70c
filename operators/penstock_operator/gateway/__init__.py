"""The gateways that requests come through: where they are, what they know, and how a fresh one is told."""
