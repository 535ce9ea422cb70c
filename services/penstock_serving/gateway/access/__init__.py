"""Who may ask a model: API keys, tokens and their issuers."""
