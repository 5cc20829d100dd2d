"""The end of a connection that becomes a link: its socket goes to whoever serves what joins."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from protocol.framing import Encoding
from protocol.handler import Handler, Peer, Refusal
from protocol.wire import Code, JoinFrame


def hand_over(
    join: JoinFrame, encoding: Encoding, sock: socket.socket, handler: Handler, peer: Peer, *, alone: bool
) -> Callable[[], None]:
    """Have the handler take this connection; the caller lets go of the socket, then calls what is returned.

    Args:
        alone: nothing else is under way on the connection, in either direction.

    Raises:
        Refusal: of the handler's, or ``bad_message`` or ``busy``: this connection cannot become a link.
    """
    if encoding != "msgpack":
        raise Refusal(Code.BAD_MESSAGE, "a link speaks msgpack: join over a connection of frames")
    if not alone:
        raise Refusal(Code.BUSY, "a join stands alone: say it with nothing under way, and nothing behind it")
    try:
        link = sock.dup()
    except OSError as error:  # no descriptor is left
        raise Refusal(Code.BUSY, str(error)) from error
    try:
        take = handler.join(join.name, peer)
    except Refusal:
        link.close()
        raise
    return partial(take, link)
