"""One line a peer and error, in bounded memory."""

from tailrace.transport.complaints import Complaints


def test_each_peer_and_error_once() -> None:
    complaints = Complaints()
    assert complaints.is_new(b"a", 1)
    assert not complaints.is_new(b"a", 1)
    assert complaints.is_new(b"a", 2)
    assert complaints.is_new(b"b", 1)


def test_the_oldest_are_forgotten() -> None:
    complaints = Complaints(remembered_max=2)
    for peer in (b"a", b"b", b"a", b"c"):
        complaints.is_new(peer, 1)
    assert len(complaints) == 2
    assert not complaints.is_new(b"a", 1)
    assert complaints.is_new(b"b", 1)
