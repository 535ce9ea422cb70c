"""How objects are looked at again and again: the queue, the one runner of all reconcilers, and the events that tell of it."""
