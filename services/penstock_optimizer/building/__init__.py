"""From a model as its owner has it to a variant that an engine loads."""
