"""OpenArena: share memory with a client of this machine, so that payloads need not be sent.

- only over ipc, only for this node's own user, and only memory that cannot shrink;
- in place of what the connection had handed over before; given back when the connection ends;
- refused (LOCAL_PATH): the client goes on with frames.
"""

from tailrace.protocol.local_messages import ArenaOpened, OpenArena
from tailrace.transport.peer_files import credentials_of
from tailrace.transport.server import Incoming

from ..broker import Broker


def handle(broker: Broker, incoming: Incoming, request: OpenArena) -> None:
    """Map the client's memory."""
    broker.arenas.open(incoming.peer, credentials_of(incoming.part), request.fd, request.token)
    broker.reply(incoming.peer, ArenaOpened(request.request_id))
