"""The client that reads."""
