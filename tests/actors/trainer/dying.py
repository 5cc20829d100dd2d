"""Save, move HEAD, retain, publish, move HEAD, move ``current``, retain; dying before the numbered durable step.

    python -P -m tests.actors.trainer.dying HOME STEP

Exits 9 if it died, 0 if it reached the end alive.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from actors.trainer.head import repair_current
from actors.trainer.retention import retain_versions
from protocol.home import Home
from protocol.records import Head
from tests.actors.trainer.disks import dying_disk
from tests.actors.trainer.scene import LINEAGE, Scene


def main(root: str, at: int) -> None:
    scene = Scene(Home(Path(root)), dying_disk(at))
    head = scene.head.read()
    assert head is not None
    manifest = scene.save(30, parent=head.checkpoint)
    scene.head.replace(Head(LINEAGE, manifest.name, head.version, datetime.now(UTC)))
    scene.store.retain(keep=2)
    version = scene.publish(30, checkpoint=manifest.name)
    head = Head(LINEAGE, manifest.name, version.version, datetime.now(UTC))
    scene.head.replace(head)
    repair_current(scene.home, scene.disk, head)
    retain_versions(scene.home, scene.disk, keep=1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
