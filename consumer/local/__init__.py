"""Offsets and keys of the application on the consumer's own machine."""
