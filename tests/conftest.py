"""What all tests share."""

import signal

import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("tailrace", deadline=None)
settings.load_profile("tailrace")


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works() -> None:
    """A shell starts what runs in the background with SIGINT ignored, which every child would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
