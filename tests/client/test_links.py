"""Which connections are said to be missing: not those that are being made."""

from random import Random

import pytest

from tailrace.client.link import Link, Links

WANTED_AT = 10.0


@pytest.fixture
def links() -> Links:
    return Links(Random(1))


@pytest.fixture
def wanted(links: Links) -> Link:
    """A request waits for it, and it is tried to connect."""
    link = links[1]
    link.unsent.append(7)
    link.be_patient(WANTED_AT)
    return link


def test_one_is_missing_from_its_first_attempt_on(links: Links, wanted: Link) -> None:
    wanted.be_more_patient(WANTED_AT + 1)
    assert links.missing() == [wanted]
    assert links.missing(since=WANTED_AT) == [wanted]
    assert links.missing(since=WANTED_AT - 0.1) == []


def test_one_that_nobody_has_tried_yet_is_not_missing_for_long(links: Links) -> None:
    links[1].unsent.append(7)
    assert links.missing() == [links[1]]
    assert links.missing(since=1e9) == []


def test_one_that_was_there_is_missing_anew(links: Links, wanted: Link) -> None:
    wanted.connected(WANTED_AT + 1)
    assert links.missing() == []
    wanted.ready = False
    wanted.be_patient(WANTED_AT + 2)
    assert links.missing(since=WANTED_AT + 1) == []
    assert links.missing(since=WANTED_AT + 2) == [wanted]


def test_one_that_nobody_wants_is_not_missing(links: Links, wanted: Link) -> None:
    wanted.unsent.clear()
    assert links.missing() == []
