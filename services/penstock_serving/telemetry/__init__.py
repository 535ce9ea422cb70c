"""How spans leave a serving process."""
