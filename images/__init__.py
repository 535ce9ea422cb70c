"""Penstock's container images: a Dockerfile, and a writer that makes the same images where no container tool is."""
