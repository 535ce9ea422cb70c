"""What answers cost: figures from replicas or from Prometheus, priced and shown."""
