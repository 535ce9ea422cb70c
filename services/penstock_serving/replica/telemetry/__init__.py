"""What a replica tells of itself: metrics, load, spans of requests and of its start."""
