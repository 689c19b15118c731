"""Handlers run by a pool of processes: `tailrace.workers.Pool`."""
