"""HAProxy: its configuration, its process, its log, and how it is brought to hold what the table says."""
