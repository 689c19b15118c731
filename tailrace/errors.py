"""The errors that Tailrace raises: `from tailrace.errors import BufferFullError`. All are TailraceErrors."""

from tailrace.protocol.errors import *  # noqa: F403
