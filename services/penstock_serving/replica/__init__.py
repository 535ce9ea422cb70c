"""A replica: one model behind its own HTTP socket, and the Ray actor that looks after it."""
