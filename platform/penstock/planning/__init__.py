"""From what is observed to what is to be done. Pure: no clock, no network, no environment."""
