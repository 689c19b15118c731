"""A process that answers every request with what it got, until it is killed."""

import sys

from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller
from tailrace.transport.server import Server


def main(tcp: str, ipc: str = "") -> None:
    server = Server(new_context(), tcp=tcp, ipc=ipc)
    sys.stdout.write(server.listener.tcp + "\n")
    sys.stdout.flush()
    poller = Poller()
    poller.add(server)
    while True:
        poller.poll(None)
        while request := server.receive():
            server.send(request.peer, bytes(request.header), request.frames)


main(*sys.argv[1:])
