"""What a replica is told: its settings, and the control messages between it and its supervisor."""
