"""What answers cost: use and reservation, by process trees, prices, allocation, what is idle and what would save it; all pure."""
