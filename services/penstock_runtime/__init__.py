"""What the replica and the optimizer share, so that what was measured is what serves: engines, stores, signatures."""
