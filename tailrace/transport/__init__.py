"""Sockets and shared memory: the only code that imports zmq."""
