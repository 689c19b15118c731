"""What `tailrace apply` would do, from two versions of a file."""

from pathlib import Path

import pytest

from tailrace.cli.apply_plan import Known, Plan, Running, Step, make_plan, settings_of
from tailrace.cli.cluster_config import ClusterConfig, load_cluster

BEFORE = """
data_dir: data
coordinator: {listen: "127.0.0.1:7070", session_timeout_ms: 6000}
node_defaults: {quota_bytes: 1GiB}
nodes: [{id: 1}, {id: 2, rack: a}]
"""
ALIVE = Known(alive=True, draining=False)


def config(folder: Path, text: str) -> ClusterConfig:
    file = folder / "cluster.yaml"
    file.write_text(text)
    return load_cluster(file, data_dir=folder)


def planned(folder: Path, text: str, *, restart: bool = False, **known: Known) -> Plan:
    old = config(folder, BEFORE)
    running = Running(
        settings_of(old.coordinator),
        {node.node_id: settings_of(node) for node in old.nodes},
        {1: ALIVE, 2: ALIVE} | {int(name[1:]): each for name, each in known.items()},
    )
    return make_plan(running, config(folder, text), restart=restart)


def test_the_same_file_asks_for_nothing(tmp_path: Path) -> None:
    assert planned(tmp_path, BEFORE) == Plan((), ())
    assert planned(tmp_path, BEFORE + "# a comment\n", n9=ALIVE) == Plan((), ()), "node 9 is none of ours"


def test_steps_come_in_an_order_that_works(tmp_path: Path) -> None:
    text = BEFORE.replace("{id: 1}, {id: 2, rack: a}", "{id: 2, rack: b}, {id: 3}").replace("6000", "7000")
    plan = planned(tmp_path, text)
    assert plan == Plan(
        (
            Step("restart", None, (("session_timeout_ms", 6_000, 7_000),)),
            Step("start", 3),
            Step("restart", 2, (("rack", "a", "b"),)),
            Step("remove", 1),
        ),
        (),
    )
    assert [step.text for step in plan.steps] == [
        "restart the coordinator: session_timeout_ms 6000 -> 7000",
        "start node 3",
        "restart node 2: rack a -> b",
        "remove node 1: move everything off it, stop it, forget it",
    ]


def test_a_default_changes_every_node(tmp_path: Path) -> None:
    plan = planned(tmp_path, BEFORE.replace("1GiB", "2GiB"))
    assert [(step.action, step.node_id) for step in plan.steps] == [("restart", 1), ("restart", 2)]


def test_everything_that_runs_is_restarted_if_asked(tmp_path: Path) -> None:
    text = BEFORE.replace("{id: 1}, ", "").replace("rack: a}", "rack: b}, {id: 3}")
    plan = planned(tmp_path, text, restart=True)
    assert [step.text for step in plan.steps] == [
        "restart the coordinator",
        "start node 3",
        "restart node 2: rack a -> b",
        "remove node 1: move everything off it, stop it, forget it",
    ]
    assert planned(tmp_path, BEFORE, restart=True).steps == tuple(Step("restart", n) for n in (None, 1, 2))


def test_nodes_that_partitions_need_stay(tmp_path: Path) -> None:
    old, new = config(tmp_path, BEFORE), config(tmp_path, BEFORE.replace("{id: 1}, ", ""))
    nodes = {node.node_id: settings_of(node) for node in old.nodes}
    for known, refused in (({}, 1), ({7: ALIVE}, 0), ({7: Known(alive=True, draining=True)}, 1)):
        running = Running(settings_of(old.coordinator), nodes, {1: ALIVE, 2: ALIVE, **known}, 2)
        assert len(make_plan(running, new).refused) == refused


def test_a_draining_node_that_the_file_names_stays(tmp_path: Path) -> None:
    draining = Known(alive=True, draining=True)
    plan = planned(tmp_path, BEFORE.replace("rack: a", "rack: b"), n2=draining)
    assert [(step.action, step.node_id) for step in plan.steps] == [("keep", 2), ("restart", 2)]
    assert plan.steps[0].text == "keep node 2, which is draining: nothing more moves off it"
    text = BEFORE.replace("rack: a}", "rack: a}, {id: 3}")
    plan = planned(tmp_path, text, n3=Known(alive=False, draining=True))
    assert plan.steps == (Step("start", 3), Step("keep", 3))


def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    plan = planned(tmp_path, BEFORE, n3=Known(alive=False, draining=True))
    assert plan.steps == (Step("forget", 3),)
    assert plan.steps[0].text == "forget node 3, which was emptied and stopped"
    assert planned(tmp_path, BEFORE, n3=Known(alive=False, draining=False)).steps == ()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("7070", "7071", "listen of the coordinator cannot change from 127.0.0.1:7070 to 127.0.0.1:7071"),
        ('7070"', '7070", publisher_listen: "127.0.0.1:7072"', "publisher_listen of the coordinator"),
        ("rack: a", "rack: a, ephemeral: true", "ephemeral of node 2 cannot change from false to true"),
        ("rack: a}", "rack: a}, {id: 3}", "node 3 runs already, but not under this `tailrace up`"),
    ],
)
def test_what_cannot_be_applied(tmp_path: Path, old: str, new: str, reason: str) -> None:
    [refused] = planned(tmp_path, BEFORE.replace(old, new), n3=ALIVE).refused
    assert refused.startswith(reason)
