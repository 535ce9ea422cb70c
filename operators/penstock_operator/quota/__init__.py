"""Counts what each namespace's deployments take of its `TenantQuota`, and says which of them must wait."""
