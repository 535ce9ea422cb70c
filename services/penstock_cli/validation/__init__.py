"""What the API server would refuse, told without one."""
