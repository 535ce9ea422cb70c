"""The search: what to try next, decided from its ledger alone, and what carries it out."""
