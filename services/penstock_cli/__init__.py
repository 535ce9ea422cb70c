"""The command line: `penstock`, and the same as `kubectl penstock`."""
