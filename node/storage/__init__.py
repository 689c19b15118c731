"""The log, its indexes and the producer table, in one LMDB environment."""
