"""One module a request: what it asks, what is refused, and what is decided. No side effects here."""
