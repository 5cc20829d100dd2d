"""TrainerActor: a training process with torch. Isolation: process."""

from __future__ import annotations

from actors.trainer.engine import Engine
from actors.trainer.session_actor import SessionActor
from actors.trainer.torch_engine import TorchEngine
from protocol.home import Home


class TrainerActor(SessionActor):
    """Loads the model once, trains, checkpoints, publishes."""

    def engine(self, home: Home) -> Engine:
        return TorchEngine()
