"""One request, one handler."""
