"""Names of spans, attributes and metrics, and the record from which a span is built."""
