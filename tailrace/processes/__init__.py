"""Child processes and signals: what the supervisor of a cluster and a pool of workers share."""
