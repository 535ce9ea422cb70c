"""Answers that are kept and given again: keys, a bounded store, requests that share a run, and when it pays.

Nothing here reads a clock or does I/O.
"""
