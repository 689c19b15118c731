"""The client that writes."""

from .delivery import Delivery, ManyDelivery, RangeMetadata, RecordMetadata
from .producer import Producer

__all__ = ["Delivery", "ManyDelivery", "Producer", "RangeMetadata", "RecordMetadata"]
