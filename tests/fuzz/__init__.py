"""Random requests against the codec of each protocol, the HTTP front and the replica's routes, each judged by a simple model of its own.

The suite runs some seconds of it, always the same (`tests/unit/protocol/test_fuzzed_codec.py` and its like). For longer, with
new examples every time: `python -m tests.fuzz codec --minutes 60`.
"""
