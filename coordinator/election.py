"""Who leads a partition: RELIABILITY's rule for ISR and ELR (KIP-966), as pure functions.

- A leader is alive and in the ISR. It is kept while it is both; else the first of the replicas
  that is both takes over. A node that is to be emptied leads only what nobody else of the ISR can.
- With nobody alive in the ISR, one alive member of the ELR becomes leader and sole ISR.
- With nobody alive in either there is no leader, and both stay as they are: any of them has
  every committed record, and is elected when it returns.
- Only where the topic allows `unclean` elections another replica that is alive is elected then. It
  may lack records: it is the sole ISR, and the ELR is empty, for those in it have another history.
  One that was never in the ISR, to which the partition is only moving, has nothing, and never is; nor does
  one that comes back with other storage lead while somebody of ISR or ELR may come back.
- Members leave the ISR when they die; while fewer than `min_insync` are left they go to the
  ELR, since nothing is committed without them. It clears when there are enough again.
- The leader epoch counts elections (losing a leader is none), the partition epoch all changes. Who leaves for
  a fault of its log begins a new one too, so that what its leader knows of it is void; and who leaves the
  replicas does, since it deletes its log, and may come back without it.
"""

from collections.abc import Iterable, Set
from typing import NamedTuple

from msgspec.structs import replace

from tailrace.protocol.cluster import NO_LEADER, PartitionInfo, TopicConfig


class Rules(NamedTuple):
    """What elections in a topic look at beside the partition.

    `alive`: the nodes that may lead. `avoided`: those of them that lead only what nobody else can.
    """

    alive: Set[int]
    min_insync: int = 1
    unclean: bool = False
    avoided: Set[int] = frozenset()


def rules_of(config: TopicConfig, alive: Set[int], avoided: Set[int] = frozenset()) -> Rules:
    """The rules of a topic."""
    return Rules(alive, config.min_insync_replicas, config.unclean_leader_election, avoided)


def settle(partition: PartitionInfo, rules: Rules) -> PartitionInfo:
    """The partition as it must be when the nodes `alive` are; the same object if nothing changes."""
    isr = tuple(node_id for node_id in partition.isr if node_id in rules.alive)
    if not isr:
        isr = _first((n for n in partition.replicas if n in partition.elr and n in rules.alive), rules)
    if isr:
        return _finish_move(partition, _with_isr(partition, isr, rules), rules)
    if rules.unclean:
        isr = _first((n for n in partition.replicas if n in rules.alive and n not in partition.adding), rules)
    if isr:
        return _finish_move(partition, _changed(partition, isr[0], isr, ()), rules)
    return _changed(partition, NO_LEADER, partition.isr, partition.elr)


def is_unclean(before: PartitionInfo, after: PartitionInfo, lacking: Set[int] = frozenset()) -> bool:
    """Has a replica been elected that may lack committed records? Those of `lacking` always may."""
    eligible = {*before.isr, *before.elr} - lacking
    return after.leader_epoch != before.leader_epoch and after.leader not in eligible


def return_node(
    partition: PartitionInfo, node_id: int, rules: Rules, *, intact: bool, empty: bool = False
) -> PartitionInfo:
    """The partition after `node_id` has started anew.

    Nobody may take a new process for the old one (KIP-380), so it counts as dead, then as alive:
    what it led is led in a new epoch, by another member of the ISR if there is one. `intact`: it still
    has every record that it acknowledged. Without that it is eligible only if it is the sole replica. If it
    is `empty`, its return is no reason for an unclean election while others are eligible: they may return.
    """
    eligible = partition
    if not intact and not is_sole_replica(partition, node_id):
        isr = tuple(n for n in partition.isr if n != node_id)
        elr = tuple(n for n in partition.elr if n != node_id)
        eligible = _changed(partition, partition.leader, isr, elr)
    # Nobody is elected uncleanly for the moment in which it counts as dead.
    away = settle(eligible, rules._replace(alive=rules.alive - {node_id}, unclean=False))
    back = settle(away, rules._replace(alive=rules.alive | {node_id}, unclean=False))
    if rules.unclean and back.leader == NO_LEADER and not (empty and (back.isr or back.elr)):
        # One that is intact goes before those that have waited since they came back empty.
        back = settle(away, rules._replace(alive={node_id} if intact else rules.alive | {node_id}))
    if back is partition:
        return partition
    return replace(back, partition_epoch=partition.partition_epoch + 1)


def is_sole_replica(partition: PartitionInfo, node_id: int) -> bool:
    """Does nobody else hold it? Those that have yet to catch up for the first time do not."""
    return set(partition.replicas) - {node_id} <= set(partition.adding)


def change_isr(partition: PartitionInfo, isr: Set[int], rules: Rules) -> PartitionInfo:
    """The partition with the ISR that its leader has found, which is one of them.

    A partition whose target is in sync has moved with that.
    """
    ordered = tuple(n for n in partition.replicas if n in isr)
    if set(ordered) == set(partition.isr):
        return partition
    return _finish_move(partition, _with_isr(partition, ordered, rules), rules)


def leave(partition: PartitionInfo, node_id: int, rules: Rules) -> PartitionInfo:
    """The partition in a new leader epoch, with `node_id` in neither ISR nor ELR; others must be."""
    isr = tuple(n for n in partition.isr if n != node_id)
    elr = tuple(n for n in partition.elr if n != node_id)
    without = replace(partition, isr=isr, elr=elr)
    after = without if partition.leader == NO_LEADER else _with_isr(without, isr, rules)
    return replace(
        after,
        leader_epoch=partition.leader_epoch + (partition.leader != NO_LEADER),
        partition_epoch=partition.partition_epoch + 1,
    )


def move(partition: PartitionInfo, target: tuple[int, ...], rules: Rules, throttle: int = 0) -> PartitionInfo:
    """The partition on its way to `target`, or there, if they are in sync already.

    Who ever was in sync stays until then: if all others lose their disks, what it has is the most there is.
    Of one that moves there already only the throttle changes.
    """
    if target == partition.settled_replicas:
        if not partition.target or throttle == partition.throttle:
            return partition
        return replace(partition, throttle=throttle, partition_epoch=partition.partition_epoch + 1)
    stay = tuple(n for n in partition.replicas if n in target or n not in partition.adding)
    added = tuple(n for n in target if n not in partition.replicas)
    moving = replace(
        partition,
        replicas=stay + added,
        leader_epoch=partition.leader_epoch + _begun(partition, partition.leader, stay),
        partition_epoch=partition.partition_epoch + 1,
        target=target,
        adding=tuple(n for n in stay if n in partition.adding) + added,
        former=partition.former or partition.replicas,
        throttle=throttle,
    )
    return _finish_move(partition, moving, rules)


def elect_preferred(partition: PartitionInfo, rules: Rules) -> PartitionInfo:
    """The partition led by its first replica, if that is alive and in the ISR and not to be avoided."""
    preferred = partition.settled_replicas[0]
    able = preferred in partition.isr and preferred in rules.alive and preferred not in rules.avoided
    return _changed(partition, preferred, partition.isr, partition.elr) if able else partition


def hand_over(partition: PartitionInfo, rules: Rules) -> PartitionInfo:
    """The partition led by a member of the ISR that is not to be avoided, if there is one."""
    if partition.leader == NO_LEADER:
        return partition
    return _with_isr(partition, partition.isr, rules)


def _finish_move(before: PartitionInfo, moving: PartitionInfo, rules: Rules) -> PartitionInfo:
    """Without those that leave once all of the target are in sync; one change from `before` in all."""
    if not moving.target or not set(moving.target) <= set(moving.isr):
        return moving
    target = moving.target
    moved = replace(moving, replicas=target, isr=target, elr=(), target=(), adding=(), former=(), throttle=0)
    if moved.leader != NO_LEADER:
        moved = _with_isr(moved, moved.isr, rules)
    return replace(
        moved,
        leader_epoch=before.leader_epoch + _begun(before, moved.leader, target),
        partition_epoch=before.partition_epoch + 1,
    )


def _begun(before: PartitionInfo, leader: int, stay: Iterable[int]) -> bool:
    """Does a new leader epoch begin with this leader, and with only these left of the replicas?"""
    return leader != NO_LEADER and (leader != before.leader or not set(before.replicas) <= set(stay))


def _with_isr(partition: PartitionInfo, isr: tuple[int, ...], rules: Rules) -> PartitionInfo:
    """With this ISR, of whom all are alive; the leader is kept if it is one of them, unless to be avoided."""
    eligible = {*partition.isr, *partition.elr}.difference(isr)
    enough = len(isr) >= rules.min_insync
    elr = () if enough else tuple(n for n in partition.replicas if n in eligible)
    if partition.leader in isr and (partition.leader not in rules.avoided or rules.avoided >= set(isr)):
        return _changed(partition, partition.leader, isr, elr)
    [leader] = _first((n for n in partition.replicas if n in isr), rules)
    return _changed(partition, leader, isr, elr)


def _first(node_ids: Iterable[int], rules: Rules) -> tuple[int, ...]:
    """The first of them that is not to be avoided, else the first; none of none."""
    candidates = list(node_ids)
    return tuple([n for n in candidates if n not in rules.avoided] or candidates)[:1]


def _changed(
    partition: PartitionInfo, leader: int, isr: tuple[int, ...], elr: tuple[int, ...]
) -> PartitionInfo:
    if (leader, isr, elr) == (partition.leader, partition.isr, partition.elr):
        return partition
    elected = leader not in (partition.leader, NO_LEADER)
    return replace(
        partition,
        leader=leader,
        leader_epoch=partition.leader_epoch + elected,
        partition_epoch=partition.partition_epoch + 1,
        isr=isr,
        elr=elr,
        adding=tuple(n for n in partition.adding if n not in isr) if partition.adding else (),
    )
