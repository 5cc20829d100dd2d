"""Notes whether the garbage collector was on when it was imported, and tells whether it is on now."""

import gc

from supervisor import Actor, on
from tests.supervisor.helpers import GetAll

THEN = gc.isenabled()


class Witness(Actor):
    @on(GetAll)
    async def _(self, message: GetAll) -> list[int]:
        return [int(THEN), int(gc.isenabled())]
