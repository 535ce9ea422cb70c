"""How a new revision takes over: shown, followed and told what to do."""
