"""Consumer groups and their committed offsets, as the coordinator keeps them."""
