"""Shows samples of a replica's requests to a candidate and to a twin, after their clients were answered, and compares the answers."""
