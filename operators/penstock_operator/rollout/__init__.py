"""Judges a new revision beside the one before it, and says what follows."""
