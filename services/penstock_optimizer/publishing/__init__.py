"""The signed artifact of an accepted variant, and where it may be put."""
