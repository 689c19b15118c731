"""A broker process: partitions in LMDB, served on a ROUTER socket."""
