"""How long a part of the cluster state can get in msgpack, whatever values it takes later.

The whole state travels in one header. So its size is bounded when something is added to it;
elections and epochs never make it larger than what is counted here.
"""

from tailrace.protocol.cluster import NodeInfo, PartitionInfo, TopicInfo

_NODE_FIXED_BYTES = 58
_TOPIC_FIXED_BYTES = 64
_PARTITION_FIXED_BYTES = 23
_REPLICA_BYTES = 11  # 5 in `replicas`, 5 in `isr` or `elr`, and a share of a long list's header
_MOVING_BYTES = 6  # in `target`, `adding` or `former`
_THROTTLE_BYTES = 8  # beyond the one for 0


def node_bytes(node: NodeInfo) -> int:
    """At most this many bytes for a node in a snapshot."""
    listener = node.listener
    texts = (listener.tcp, listener.ipc, listener.boot_id, node.storage_id, node.rack)
    return _NODE_FIXED_BYTES + sum(len(text.encode()) for text in texts)


def partition_bytes(partition: PartitionInfo) -> int:
    """At most this many bytes for a partition in a snapshot."""
    moving = (len(partition.target) + len(partition.adding) + len(partition.former)) * _MOVING_BYTES
    throttle = _THROTTLE_BYTES if partition.throttle else 0
    return _PARTITION_FIXED_BYTES + len(partition.replicas) * _REPLICA_BYTES + moving + throttle


def topic_bytes(topic: TopicInfo) -> int:
    """At most this many bytes for a topic in a snapshot."""
    return _TOPIC_FIXED_BYTES + len(topic.name.encode()) + sum(map(partition_bytes, topic.partitions))
