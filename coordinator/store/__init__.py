"""Where the coordinator keeps its state."""
