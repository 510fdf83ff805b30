"""What all tests need."""

import signal


def pytest_configure():
    """Ctrl-C means what it means on a terminal: a shell that runs something in the background has it ignored, which
    everything that is started inherits."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
