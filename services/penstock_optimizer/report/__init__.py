"""The report as people look at it: one HTML page that needs nothing else."""
