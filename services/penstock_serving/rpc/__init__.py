"""gRPC, without a socket: the services' messages, their framing, and the codes of what is refused. Replica and gateway share it."""
