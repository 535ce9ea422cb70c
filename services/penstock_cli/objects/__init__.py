"""`penstock apply`, `get` and `delete`."""
