"""What the operator has seen: copies of what it follows, what became of an object, and what was learned a moment ago."""
