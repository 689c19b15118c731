"""The client that writes."""
