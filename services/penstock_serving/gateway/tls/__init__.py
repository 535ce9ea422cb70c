"""TLS to clients: which certificate, whether it is good, and how HAProxy comes to hold a new one."""
