"""The whole platform on one machine: Ray, gateway, operator and trace collector, started and ended together."""
