"""Signals that come as input."""

import os
import signal

from tailrace.processes.signal_pipe import SignalPipe


def test_signals_of_a_fork_are_its_own() -> None:
    before = signal.getsignal(signal.SIGTERM)
    pipe = SignalPipe([signal.SIGTERM])
    reader, writer = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            os.write(writer, b"x")
            signal.pause()  # SIGTERM ends it, as before
            os._exit(0)
        assert os.read(reader, 1) == b"x"
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert pipe.read_now() == b""
        os.kill(os.getpid(), signal.SIGTERM)
        assert pipe.read() == bytes([signal.SIGTERM])
    finally:
        pipe.close()
        os.close(reader)
        os.close(writer)
    pipe.close()
    assert signal.getsignal(signal.SIGTERM) is before
