"""What was read or written of a log has shown that the log is faulty: another replica is to lead it.

Who asked is told to try again, since that one will have an answer; of a sole replica, what is wrong.
"""

from msgspec.structs import replace

from tailrace.protocol.errors import CorruptBatchError, ErrorCode, LeaderNotAvailableError, TailraceError
from tailrace.protocol.messages import Fetched, FetchResult, Reply
from tailrace.protocol.replica_messages import ReplicaFetched, ReplicaFetchResult
from tailrace.protocol.wire import error_info

from ..broker import Broker
from ..storage.partition_log import PartitionLog


def found(broker: Broker, log: PartitionLog, error: TailraceError) -> TailraceError:
    """The log has failed with this error. Returns what is to be told."""
    if log.sole_replica:
        return error
    broker.replication.found_faulty(log)
    return LeaderNotAvailableError(f"another replica of {log.name} is to lead: {error}")


def noted(broker: Broker, reply: Reply) -> Reply:
    """What was read of logs: the same reply, but for results that show a fault of what is stored."""
    if not isinstance(reply, Fetched | ReplicaFetched):
        return reply
    for result in reply.results:
        if result.error.code == ErrorCode.CORRUPT_BATCH:
            results: list[FetchResult | ReplicaFetchResult] = [*reply.results]
            return replace(reply, results=[_noted(broker, result) for result in results])
    return reply


def _noted(broker: Broker, result: FetchResult | ReplicaFetchResult) -> FetchResult | ReplicaFetchResult:
    log = broker.storage.logs.get((result.topic_id, result.partition))
    if result.error.code != ErrorCode.CORRUPT_BATCH or log is None:
        return result
    return replace(result, error=error_info(found(broker, log, CorruptBatchError(result.error.message))))
