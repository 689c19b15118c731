"""Tailrace: a durable, partitioned, replicated log."""
