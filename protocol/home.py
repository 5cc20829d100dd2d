"""Every path in a home, in one place."""

from __future__ import annotations

from pathlib import Path

import msgspec

from protocol.messages.common import Priority


class Home(msgspec.Struct, frozen=True):
    """The folder that holds everything a daemon knows. Paths only: nothing is created or read here."""

    root: Path

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    def line(self, priority: Priority) -> Path:
        """The folder of one waiting line."""
        return self.queue / priority

    @property
    def processing(self) -> Path:
        return self.queue / "processing"

    @property
    def failed(self) -> Path:
        return self.queue / "failed"

    @property
    def done(self) -> Path:
        return self.queue / "done"

    @property
    def head(self) -> Path:
        """The one durable record of lineage, checkpoint and version."""
        return self.root / "HEAD"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def current(self) -> Path:
        """Relative symlink to the published version; derived from HEAD."""
        return self.models / "current"

    @property
    def versions(self) -> Path:
        return self.models / "versions"

    def version(self, number: int) -> Path:
        return self.versions / f"{number:06d}"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def database(self) -> Path:
        return self.root / "state.sqlite3"

    @property
    def stop_file(self) -> Path:
        return self.root / ".stop"

    @property
    def settings(self) -> Path:
        """The configuration that ``init`` writes and ``run --home`` reads."""
        return self.root / "stokehold.toml"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder of a home, parents first."""
        return (
            self.root, self.inbox, self.queue, self.line("high"), self.line("normal"), self.line("low"),
            self.processing, self.failed, self.done, self.models, self.versions, self.checkpoints, self.logs, self.run,
        )  # fmt: skip
