"""Samples: the user's own, or made up by the model's signature."""
