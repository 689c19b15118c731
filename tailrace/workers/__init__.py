"""Handlers run by a pool of processes."""
