"""The digits demo: real requests, and a report of what came back."""
