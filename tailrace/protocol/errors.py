"""The errors of the system: a code on the wire, an exception class in Python.

An error is a code, whether a retry can help, and a message that says what to do. A peer sends
the code and the message (`ErrorInfo`); `error_from` makes the exception again on the other side.
"""

from typing import TYPE_CHECKING, ClassVar, Final

from .error_codes import ErrorCode as ErrorCode

if TYPE_CHECKING:
    from .record import TopicPartition


class TailraceError(Exception):
    """Base of every error that Tailrace raises on purpose.

    `code` is the number on the wire, `retriable` says whether the same call may succeed later.
    """

    code: ClassVar[ErrorCode] = ErrorCode.UNKNOWN
    retriable: ClassVar[bool] = False


class MalformedRequestError(TailraceError):
    """A peer sent bytes that are no message of the protocol."""

    code = ErrorCode.MALFORMED_REQUEST


class UnsupportedVersionError(TailraceError):
    """A peer speaks a protocol version that this process does not."""

    code = ErrorCode.UNSUPPORTED_VERSION


class RequestTooLargeError(TailraceError):
    """A message or a list in it is over its bound in `tailrace.protocol.limits`."""

    code = ErrorCode.REQUEST_TOO_LARGE


class BusyError(TailraceError):
    """A bound on work in flight is reached; slow down and retry."""

    code = ErrorCode.BUSY
    retriable = True


class ShuttingDownError(TailraceError):
    """The process is stopping."""

    code = ErrorCode.SHUTTING_DOWN
    retriable = True


class TimedOutError(TailraceError, TimeoutError):
    """No answer in time; the message says from whom and how long was waited."""

    code = ErrorCode.TIMED_OUT
    retriable = True


class CorruptBatchError(TailraceError):
    """A batch whose checksum, lengths or columns do not hold.

    A consumer's names the `partition`, the `offset` that it is at, and `next_offset`, the first behind the
    batch, to `seek` to; None if that is unknown.
    """

    code = ErrorCode.CORRUPT_BATCH
    partition: "TopicPartition | None" = None
    offset: int = -1
    next_offset: int | None = None


class BatchTooLargeError(TailraceError):
    """A record or batch is over its bound."""

    code = ErrorCode.BATCH_TOO_LARGE


class InvalidTimestampError(TailraceError):
    """A timestamp lies too far in the node's future, or before 1970."""

    code = ErrorCode.INVALID_TIMESTAMP


class InvalidRecordError(TailraceError):
    """A record the node cannot take, such as one without the key that its topic needs."""

    code = ErrorCode.INVALID_RECORD


class UnknownTopicError(TailraceError):
    """There is no such topic; the message names similar ones."""

    code = ErrorCode.UNKNOWN_TOPIC


class UnknownPartitionError(TailraceError):
    """The topic exists, but not this partition of it."""

    code = ErrorCode.UNKNOWN_PARTITION


class TopicExistsError(TailraceError):
    """A topic of this name exists."""

    code = ErrorCode.TOPIC_EXISTS


class InvalidTopicError(TailraceError):
    """A topic name outside `[A-Za-z0-9._-]{1,249}`."""

    code = ErrorCode.INVALID_TOPIC


class InvalidConfigError(TailraceError):
    """A configuration key or value that does not exist or does not fit."""

    code = ErrorCode.INVALID_CONFIG


class NotEnoughNodesError(TailraceError):
    """Fewer live nodes than the replication factor asks for."""

    code = ErrorCode.NOT_ENOUGH_NODES
    retriable = True


class LimitExceededError(TailraceError):
    """A bound on topics, partitions or nodes is reached."""

    code = ErrorCode.LIMIT_EXCEEDED


class NotLeaderError(TailraceError):
    """This node does not lead the partition (any more, or not yet)."""

    code = ErrorCode.NOT_LEADER
    retriable = True


class FencedLeaderEpochError(TailraceError):
    """The request names an older leader epoch than the node's: refresh the cluster state."""

    code = ErrorCode.FENCED_LEADER_EPOCH
    retriable = True


class UnknownLeaderEpochError(TailraceError):
    """The request names a newer leader epoch than the node has heard of yet."""

    code = ErrorCode.UNKNOWN_LEADER_EPOCH
    retriable = True


class LeaderNotAvailableError(TailraceError):
    """The partition has no live leader at the moment."""

    code = ErrorCode.LEADER_NOT_AVAILABLE
    retriable = True


class NotEnoughReplicasError(TailraceError):
    """Fewer replicas than `min_insync_replicas` are in sync: nothing that asks for all of them is stored."""

    code = ErrorCode.NOT_ENOUGH_REPLICAS
    retriable = True


class NotCommittedError(TailraceError):
    """The node has appended the batch, and cannot tell whether it counts. Sent again it is stored once."""

    code = ErrorCode.NOT_COMMITTED
    retriable = True


class StalePartitionEpochError(TailraceError):
    """A partition has changed since the one who wants to change it has looked."""

    code = ErrorCode.STALE_PARTITION_EPOCH
    retriable = True


class OffsetOutOfRangeError(TailraceError):
    """The offset lies outside what the partition holds."""

    code = ErrorCode.OFFSET_OUT_OF_RANGE


class UnknownFetchSessionError(TailraceError):
    """The node has forgotten the fetch session, or it is not where the fetch takes it to be: begin anew."""

    code = ErrorCode.UNKNOWN_FETCH_SESSION
    retriable = True


class OutOfOrderSequenceError(TailraceError):
    """A batch does not follow the last one of its producer: one before it is missing."""

    code = ErrorCode.OUT_OF_ORDER_SEQUENCE


class FencedProducerError(TailraceError):
    """A newer producer with the same id has taken over."""

    code = ErrorCode.FENCED_PRODUCER


class UnknownProducerIdError(TailraceError):
    """The partition does not know this producer id, and the batch is not its first."""

    code = ErrorCode.UNKNOWN_PRODUCER_ID


class StorageFullError(TailraceError):
    """The disk or the node's quota is full; reads go on, writing resumes when space is freed."""

    code = ErrorCode.STORAGE_FULL
    retriable = True


class StorageFaultError(TailraceError):
    """Storage failed: the disk, and the node or coordinator stops; or one log alone, and the node goes on.

    Retriable, since a node that was started again, or another leader, may take the request.
    """

    code = ErrorCode.STORAGE_FAULT
    retriable = True


class StaleNodeEpochError(TailraceError):
    """The node has been registered again, or declared dead, since; it must register anew."""

    code = ErrorCode.STALE_NODE_EPOCH


class UnknownNodeError(TailraceError):
    """The coordinator does not know this node."""

    code = ErrorCode.UNKNOWN_NODE


class NodeIdInUseError(TailraceError):
    """Another live process, with other storage, is registered under this node id."""

    code = ErrorCode.NODE_ID_IN_USE


class LocalPathError(TailraceError):
    """A node cannot share memory with a client, which sends frames instead; the message says why."""

    code = ErrorCode.LOCAL_PATH


class UnknownGroupError(TailraceError):
    """There is no such consumer group."""

    code = ErrorCode.UNKNOWN_GROUP


class InvalidGroupError(TailraceError):
    """A group or instance id outside `[A-Za-z0-9._-]{1,249}`, or something else a group cannot be asked."""

    code = ErrorCode.INVALID_GROUP


class GroupNotEmptyError(TailraceError):
    """The group has members, so only they may change its offsets: stop them first."""

    code = ErrorCode.GROUP_NOT_EMPTY


class UnknownMemberError(TailraceError):
    """The group does not have this member (any more): it was silent too long, or its connection closed."""

    code = ErrorCode.UNKNOWN_MEMBER


class FencedMemberError(TailraceError):
    """The partition is another member's now, or nobody's; the message names who has it."""

    code = ErrorCode.FENCED_MEMBER


class InstanceIdInUseError(TailraceError):
    """A living member has this `group_instance_id`; each instance needs one of its own."""

    code = ErrorCode.INSTANCE_ID_IN_USE


class ConnectionFailedError(TailraceError, ConnectionError):
    """An address could not be reached, or the connection broke; the message says which and why."""

    code = ErrorCode.CONNECTION_FAILED
    retriable = True


class ClosedError(TailraceError):
    """The producer, consumer or admin client was closed."""

    code = ErrorCode.CLOSED


class BufferFullError(TailraceError):
    """`buffer_memory` stayed full for `max_block_ms`.

    `accepted`: how many records of a `send_many`, from the first on, were accepted before.
    """

    code = ErrorCode.BUFFER_FULL
    retriable = True
    accepted: int = 0


class DeliveryFailedError(TailraceError):
    """Records were not acknowledged; raised by `flush()` and on leaving a `with` block."""

    code = ErrorCode.DELIVERY_FAILED


class InvalidArgumentError(TailraceError, ValueError):
    """An argument of a call does not fit; the message says what would."""

    code = ErrorCode.INVALID_ARGUMENT


class DataFolderError(TailraceError):
    """A data folder is in use, of a newer format, or not one of ours."""

    code = ErrorCode.DATA_FOLDER


class SerializationError(TailraceError):
    """A serializer or deserializer raised, or gave something that is not bytes."""

    code = ErrorCode.SERIALIZATION


class ConcurrentUseError(TailraceError, RuntimeError):
    """Two threads use what belongs to one, or a signal handler what its own thread is in the middle of."""

    code = ErrorCode.CONCURRENT_USE


class WorkerFailedError(TailraceError):
    """A pool of workers cannot go on: a record that no handler could do, a handler that does not load."""

    code = ErrorCode.WORKER_FAILED


def _classes() -> dict[ErrorCode, type[TailraceError]]:
    named = (value for value in globals().values() if isinstance(value, type))
    return {cls.code: cls for cls in named if issubclass(cls, TailraceError)}


ERROR_CLASSES: Final = _classes()


def error_from(code: int, message: str) -> TailraceError:
    """The exception for a code from the wire; an unknown code gives the base class."""
    try:
        cls = ERROR_CLASSES[ErrorCode(code)]
    except (ValueError, KeyError):
        return TailraceError(f"error {code} from a newer peer: {message}")
    return cls(message)
