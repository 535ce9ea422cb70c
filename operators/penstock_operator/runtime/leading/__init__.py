"""Of several operators one acts."""
