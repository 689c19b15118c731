"""What processes agree on: formats, messages, errors, limits. Pure: no socket, file, thread or clock."""
