"""One log line for each peer and sort of misbehaviour, in bounded memory. Pure."""

from collections import OrderedDict

from tailrace.protocol.limits import LOGGED_PEERS_MAX


class Complaints:
    """Remembers what was complained about; the oldest are forgotten, and may be logged once more."""

    def __init__(self, remembered_max: int = LOGGED_PEERS_MAX) -> None:
        self._remembered_max = remembered_max
        self._seen: OrderedDict[tuple[bytes, int], None] = OrderedDict()

    def is_new(self, peer: bytes, code: int = 0) -> bool:
        """Whether to log this one; `code` is the sort."""
        complaint = (peer, code)
        if complaint in self._seen:
            self._seen.move_to_end(complaint)
            return False
        self._seen[complaint] = None
        if len(self._seen) > self._remembered_max:
            self._seen.popitem(last=False)
        return True

    def __len__(self) -> int:
        return len(self._seen)
