"""What partitions cut. Pure; the network itself is made in runs with `--faults partition`."""

from tailrace.processes.launch import COORDINATOR, Role
from tailrace.torture.network import CLIENTS, cuts_of
from tailrace.torture.plan import PICKS

ROLES = (COORDINATOR, Role(1), Role(2), Role(3))


def test_cut_off_from_everybody() -> None:
    how, cuts = cuts_of("leader", Role(1), ROLES, 0)
    assert how == "from all"
    others = ("coordinator", "node-2", "node-3", CLIENTS)
    assert set(cuts) == {("node-1", other) for other in others} | {(other, "node-1") for other in others}


def test_cut_off_from_the_cluster_alone() -> None:
    how, cuts = cuts_of("follower", Role(2), ROLES, PICKS // 2)
    assert how == "from the cluster"
    assert len(cuts) == 6
    assert CLIENTS not in {name for cut in cuts for name in cut}


def test_one_way() -> None:
    how, cuts = cuts_of("coordinator", COORDINATOR, ROLES, PICKS - 1)
    assert how == "one way"
    assert cuts == [("coordinator", f"node-{number}") for number in (1, 2, 3)]


def test_no_node_reaches_another() -> None:
    _, cuts = cuts_of("all", COORDINATOR, ROLES, 0)
    assert len(cuts) == 6
    assert "coordinator" not in {name for cut in cuts for name in cut}
