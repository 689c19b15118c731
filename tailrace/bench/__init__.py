"""Load tests: producers and consumers in processes of their own, measured together."""
