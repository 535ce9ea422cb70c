"""How requests become batches: a state machine that does no I/O and reads no clock."""
