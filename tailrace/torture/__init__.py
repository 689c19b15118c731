"""A real cluster under load while faults are injected, and a checker of everything that happened."""
