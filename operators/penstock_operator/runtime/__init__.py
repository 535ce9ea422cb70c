"""The operator's runtime: clusters, watches, queues, leases and events. It knows no Penstock kind."""
