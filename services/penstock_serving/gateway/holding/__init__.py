"""Requests that HAProxy finds no replica for: held, their model woken, passed on."""
