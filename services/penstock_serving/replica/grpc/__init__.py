"""The front that speaks gRPC: HAProxy, which speaks HTTP/2 to clients, hands its calls on over HTTP/1.1."""
