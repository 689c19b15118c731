"""The client that reads."""

from tailrace.client.descriptions import OffsetAndTimestamp

from .column_batch import ColumnBatch
from .consumer import Consumer

__all__ = ["ColumnBatch", "Consumer", "OffsetAndTimestamp"]
