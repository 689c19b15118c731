"""The process that owns the cluster state and publishes it."""
