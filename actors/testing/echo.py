"""EchoTrainer: the trainer without torch. Session, keeper and files are the real ones; only the engine is another.

Its weights are a running digest, so that a sample lost, doubled or out of order shows; it starts in a blink. For tests
of crashes and recovery, ours and those of anyone who embeds the daemon::

    async with open_daemon(home, trainer=ECHO, preload=ECHO_PRELOAD) as daemon: ...
"""

from __future__ import annotations

from actors.testing.echo_engine import EchoEngine
from actors.trainer.engine import Engine
from actors.trainer.session_actor import SessionActor
from protocol.home import Home

ECHO = "actors.testing.echo:EchoTrainer"
ECHO_PRELOAD = ("actors.testing.echo",)


class EchoTrainer(SessionActor):
    """Stands in for TrainerActor: same arguments, same messages, same isolation."""

    def engine(self, home: Home) -> Engine:
        return EchoEngine(home)
