"""The front that speaks HTTP/1.1: the one place that knows its paths, headers and status codes."""
