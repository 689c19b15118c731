"""Handlers run by a pool of processes."""

from .pool import Pool

__all__ = ["Pool"]
