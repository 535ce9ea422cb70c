"""`penstock apply`, `get`, `describe` and `delete`."""
