"""A view of Kubernetes' nodes and of what pods have asked of them, kept by watching both."""
