"""What a variant's answers lose against the baseline's."""
