"""Child processes and signals: what supervisor, test cluster, load tests and worker pool share."""
