"""The operator: reconciles Penstock's resources with Ray clusters and gateways."""
