"""The log, its indexes and the producer table, in one LMDB environment."""

from .environment import Storage
from .partition_log import PartitionKey, PartitionLog
from .planner import Append, Appended

__all__ = ["Append", "Appended", "PartitionKey", "PartitionLog", "Storage"]
