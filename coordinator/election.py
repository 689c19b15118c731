"""Who leads a partition: RELIABILITY's rule for ISR and ELR (KIP-966), as pure functions.

- A leader is alive and in the ISR. It is kept while it is both; else the first of the replicas
  that is both takes over.
- With nobody alive in the ISR, one alive member of the ELR becomes leader and sole ISR.
- With nobody alive in either there is no leader, and both stay as they are: any of them has
  every committed record, and is elected when it returns.
- Members leave the ISR when they die; while fewer than `min_insync` are left they go to the
  ELR, since nothing is committed without them. It clears when there are enough again.
- The leader epoch counts elections (losing a leader is none), the partition epoch all changes.
"""

from collections.abc import Set

from tailrace.protocol.cluster import NO_LEADER, PartitionInfo


def settle(partition: PartitionInfo, alive: Set[int], min_insync: int) -> PartitionInfo:
    """The partition as it must be when the nodes `alive` are; the same object if nothing changes."""
    isr = tuple(node_id for node_id in partition.isr if node_id in alive)
    if not isr:
        isr = tuple(n for n in partition.replicas if n in partition.elr and n in alive)[:1]
    if not isr:
        return _changed(partition, NO_LEADER, partition.isr, partition.elr)
    eligible = {*partition.isr, *partition.elr}.difference(isr)
    elr = () if len(isr) >= min_insync else tuple(n for n in partition.replicas if n in eligible)
    if partition.leader in isr:
        return _changed(partition, partition.leader, isr, elr)
    leader = next(n for n in partition.replicas if n in isr)
    return _changed(partition, leader, isr, elr)


def return_node(
    partition: PartitionInfo, node_id: int, alive: Set[int], min_insync: int, *, same_storage: bool
) -> PartitionInfo:
    """The partition after `node_id` has started anew.

    Nobody may take a new process for the old one (KIP-380), so it counts as dead, then as alive:
    what it led is led in a new epoch, by another member of the ISR if there is one. Without the
    storage it had, it is eligible only if it is the sole replica.
    """
    if not same_storage and partition.replicas != (node_id,):
        isr = tuple(n for n in partition.isr if n != node_id)
        elr = tuple(n for n in partition.elr if n != node_id)
        away = settle(_changed(partition, partition.leader, isr, elr), alive - {node_id}, min_insync)
    else:
        away = settle(partition, alive - {node_id}, min_insync)
    back = settle(away, alive | {node_id}, min_insync)
    if back is partition:
        return partition
    return _with_epochs(back, back.leader_epoch, partition.partition_epoch + 1)


def _changed(
    partition: PartitionInfo, leader: int, isr: tuple[int, ...], elr: tuple[int, ...]
) -> PartitionInfo:
    if (leader, isr, elr) == (partition.leader, partition.isr, partition.elr):
        return partition
    elected = leader not in (partition.leader, NO_LEADER)
    return PartitionInfo(
        partition.replicas,
        leader,
        partition.leader_epoch + elected,
        partition.partition_epoch + 1,
        isr,
        elr,
    )


def _with_epochs(partition: PartitionInfo, leader_epoch: int, partition_epoch: int) -> PartitionInfo:
    return PartitionInfo(
        partition.replicas, partition.leader, leader_epoch, partition_epoch, partition.isr, partition.elr
    )
