"""The log, its indexes and the producer table, in one LMDB environment."""

from .environment import Storage
from .log_plan import Append, Appended, Replicated
from .partition_log import PartitionKey, PartitionLog

__all__ = ["Append", "Appended", "PartitionKey", "PartitionLog", "Replicated", "Storage"]
