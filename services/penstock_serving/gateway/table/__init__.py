"""What the gateway has been told: leases and routes, kept, and the traffic that follows from them."""
