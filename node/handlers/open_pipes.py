"""OpenPipes: small messages of a client of this machine go through pipes, beside its connection.

- only over ipc, and only from this node's own user;
- in place of those that the connection had handed over before; closed when the connection ends;
- refused (LOCAL_PATH): all goes over the connection;
- answered over the connection, as all is until the client has sent something through its pipe.
"""

from tailrace.protocol.local_messages import OpenPipes, PipesOpened
from tailrace.protocol.wire import encode
from tailrace.transport.pipes import PipeEnd
from tailrace.transport.server import Incoming

from ..broker import Broker


def handle(broker: Broker, incoming: Incoming, request: OpenPipes) -> None:
    """Open the node's ends."""
    requests = PipeEnd(request.requests_fd, request.requests_inode)
    replies = PipeEnd(request.replies_fd, request.replies_inode)
    broker.pipes.open(incoming.peer, incoming.part, requests, replies)
    broker.server.send(incoming.peer, encode(PipesOpened(request.request_id)))
