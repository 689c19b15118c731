"""Throughput over time, and the longest pause of acknowledgements after each fault."""

from tailrace.torture.history import Acked, Begun, Ended, Event, Read
from tailrace.torture.timeline import Timeline, TimelineMaker


def timeline_of(events: list[Event], ends_s: float) -> Timeline:
    maker = TimelineMaker()
    for event in events:
        maker.add(event)
    return maker.timeline(ends_s)


def acks(partition: int, *times: float) -> list[Event]:
    return [Acked(at_s=at, producer=0, partition=partition, sequences=[0], offsets=[0]) for at in times]


def test_the_outage_is_the_longest_pause_of_any_partition() -> None:
    events = [
        Begun(at_s=2.0, number=0, fault="kill leader", processes=["node-1"]),
        Ended(at_s=3.0, number=0),
        Begun(at_s=6.0, number=1, fault="stop all", processes=["node-1", "node-2"]),
        *acks(0, 1.0, 1.9, 2.5, 5.0, 5.5, 6.7, 7.5, 8.0),
        *acks(1, 1.0, 2.1, 2.5, 3.0, 4.0, 5.0, 5.9, 7.0, 8.0),
    ]
    timeline = timeline_of(events, 8.0)
    assert [fault.outage_s for fault in timeline.faults] == [2.5, 1.0]
    assert [(fault.begin_s, fault.end_s) for fault in timeline.faults] == [(2.0, 3.0), (6.0, 8.0)]
    assert [fault.kind for fault in timeline.faults] == ["kill", "stop"]


def test_rates() -> None:
    read = [
        Read(at_s=at, consumer=consumer, partition=0, offsets=[0, 1], producers=[0, 0], sequences=[0, 1])
        for consumer in (3, 4)
        for at in (0.1, 0.9)
    ]
    timeline = timeline_of([*acks(0, 0.1, 0.2, 0.6), *read], 1.0)
    assert timeline.acked_per_s == [(0.125, 8.0), (0.375, 0.0), (0.625, 4.0), (0.875, 0.0)]
    assert timeline.read_per_s == [(0.125, 8.0), (0.375, 0.0), (0.625, 0.0), (0.875, 8.0)]


def test_nothing_happened() -> None:
    assert timeline_of([], 1.0).faults == []
