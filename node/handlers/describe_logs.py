"""Describe logs: what this node holds, and how much of its quota that takes."""

from tailrace.protocol.messages import DescribeLogs, LogInfo, LogsDescribed
from tailrace.transport.peer_arenas import Payload

from ..broker import Broker
from ..storage.partition_log import PartitionLog


def handle(broker: Broker, peer: bytes, request: DescribeLogs, payload: Payload, now: float) -> None:
    """Answer from memory."""
    storage = broker.storage
    broker.reply(
        peer,
        LogsDescribed(
            request.request_id,
            logs=[_info(log) for log in storage.logs.values()],
            used_bytes=storage.used_bytes,
            quota_bytes=storage.space.quota_bytes,
            full=broker.writer.shortage.needed_bytes > 0,
        ),
    )


def _info(log: PartitionLog) -> LogInfo:
    return LogInfo(
        topic_id=log.topic_id,
        partition=log.partition,
        log_start_offset=log.log_start_offset,
        log_end_offset=log.log_end_offset,
        high_watermark=log.high_watermark,
        size_bytes=log.size_bytes,
    )
