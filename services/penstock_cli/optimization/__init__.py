"""`penstock optimize` and `penstock profile`."""
