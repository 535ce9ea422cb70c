"""What gateways, replicas and the operator say to each other about where requests go."""
