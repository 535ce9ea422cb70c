"""How many replicas a model should have: a pure function of what its replicas report."""
