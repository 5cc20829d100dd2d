"""sd_notify(3) in the standard library: tell systemd that we are ready, what we do, and that we live.

Silent where there is no ``NOTIFY_SOCKET``. The variables are taken out of the environment when read, so that no child
speaks in the daemon's name.
"""

from __future__ import annotations

import os
import socket


class Notifier:
    """Sends datagrams to systemd, and never waits for it."""

    def __init__(self, address: str | None, watchdog: float | None) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        self.watchdog = watchdog
        """Seconds within which systemd wants ``WATCHDOG=1``, or None."""

    @classmethod
    def from_environment(cls) -> Notifier:
        """Take the socket's address (a path, or ``@`` and an abstract name) and the watchdog's limit, if it is ours."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        microseconds = os.environ.pop("WATCHDOG_USEC", None)
        watched = os.environ.pop("WATCHDOG_PID", None)
        ours = watched is None or watched == str(os.getpid())
        limit = int(microseconds) / 1e6 if microseconds and microseconds.isdecimal() and ours else None
        if address and address.startswith("@"):
            address = "\0" + address[1:]
        return cls(address or None, limit if address else None)

    def send(self, *lines: str) -> None:
        """Send ``KEY=value`` lines as one datagram. A manager that does not listen is none of our concern."""
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return
