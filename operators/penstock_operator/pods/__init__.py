"""Pods of pools and of optimization Jobs: what a cluster asks of them beyond what Penstock needs, and the disk they take."""
