"""The configuration in force: one immutable snapshot with a revision, replaced whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol.config import Config
from protocol.messages.system import ReloadResult, ShownConfig
from protocol.settings import ConfigError, difference, load, written


@dataclass(slots=True)
class ConfigStore:
    """Holds the snapshot that every start and restart is handed. Owner of changes: SignalHandler."""

    current: Config
    path: Path | None = None
    """The file that it was read from, and is read from again."""
    overrides: Mapping[str, object] | None = None
    """Values given on the command line as ``section.key``; they outlive a reload."""
    origins: Mapping[str, str] | None = None
    """Where each value came from, by ``section.key``."""
    revision: int = 1

    def reload(self) -> ReloadResult:
        """Read the file again. A change is applied only if all of it is live or next-job."""
        if self.path is None:
            return self._refused("this daemon was started without a configuration file")
        try:
            loaded = load(self.path, self.overrides)
        except ConfigError as error:
            return self._refused(str(error))
        changes = difference(self.current, loaded.config)
        blocking = [f"{key} ({when})" for key, when in changes if when not in ("live", "next_job")]
        if blocking:
            return ReloadResult(
                applied=False,
                revision=self.revision,
                changed=[],
                standing_in_the_way=blocking,
                reason="these keys take effect only at a restart, or are fixed for the home",
            )
        if changes:
            self.current, self.origins = loaded.config, loaded.origins
            self.revision += 1
        return ReloadResult(
            applied=True, revision=self.revision, changed=[key for key, _ in changes], standing_in_the_way=[]
        )

    def shown(self) -> ShownConfig:
        """Return every value with where it came from."""
        return ShownConfig(
            revision=self.revision,
            values=msgspec.to_builtins(self.current),
            written=written(self.current),
            origins=dict(self.origins or {}),
        )

    def _refused(self, reason: str) -> ReloadResult:
        return ReloadResult(applied=False, revision=self.revision, changed=[], standing_in_the_way=[], reason=reason)
