"""The client that reads."""

from tailrace.client.descriptions import OffsetAndMetadata, OffsetAndTimestamp

from .column_batch import ColumnBatch
from .consumer import Consumer
from .listener import RebalanceListener

__all__ = ["ColumnBatch", "Consumer", "OffsetAndMetadata", "OffsetAndTimestamp", "RebalanceListener"]
