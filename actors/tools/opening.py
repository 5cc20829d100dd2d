"""What both tools begin with: options, settings, the tokenizer; and how their mistakes are told."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from protocol.config import Config
from protocol.home import Home
from protocol.records import MANIFEST, NewerFormat, Unreadable, VersionManifest, read_record
from protocol.settings import ConfigError, load

FAILED = 1


class Refused(Exception):
    """The tool cannot answer. Its text is for the user."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The settings in force, and the home that they are for."""

    config: Config
    home: Home


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="a TOML file; default: stokehold.toml in the home")
    parser.add_argument("--home", type=Path, help="the home; default: the one that the file names")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def open_settings(options: argparse.Namespace) -> Opened:
    """Read the settings that the options name, or the defaults when they name none.

    Raises:
        Refused: they are not right.
    """
    path: Path | None = options.config
    if path is None and options.home is not None and Home(options.home).settings.exists():
        path = Home(options.home).settings
    try:
        loaded = load(path)
    except ConfigError as error:
        raise Refused(str(error)) from error
    return Opened(loaded.config, Home(options.home.absolute() if options.home is not None else loaded.home))


def as_trained(opened: Opened) -> Opened:
    """Return the settings with ``training.max_length`` as this model has positions for.

    Raises:
        Refused: there is no such folder or hub model.
    """
    from transformers import AutoConfig, PreTrainedConfig

    from actors.trainer.model import longest_row
    from actors.trainer.tiny import POSITIONS

    config = opened.config
    found: Any = PreTrainedConfig(max_position_embeddings=POSITIONS)
    if config.model.source != "tiny":
        try:
            found = AutoConfig.from_pretrained(config.model.source, trust_remote_code=config.model.trust_remote_code)
        except (OSError, ValueError) as error:
            raise Refused(f"model.source = {config.model.source!r}: {error}") from error
    training = msgspec.structs.replace(config.training, max_length=longest_row(found, config.training))
    return Opened(msgspec.structs.replace(config, training=training), opened.home)


def open_tokenizer(opened: Opened) -> Any:
    """Return the tokenizer that training uses: the home's own once it has a model, else that of ``model.source``.

    Raises:
        Refused: there is no such folder or hub model.
    """
    from transformers import AutoTokenizer

    from actors.trainer.tiny import tiny_tokenizer

    config = opened.config
    source: str | Path = opened.home.current if _is_of(opened.home, config) else config.model.source
    if source == "tiny":
        return tiny_tokenizer()
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=config.model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise Refused(f"model.source = {config.model.source!r}: {error}") from error


def _is_of(home: Home, config: Config) -> bool:
    """Whether the home has published a model, and one that the settings mean."""
    try:
        manifest = read_record(home.current / MANIFEST, VersionManifest)
    except (FileNotFoundError, NotADirectoryError, Unreadable, NewerFormat):
        return False
    return manifest.base.source == config.model.source


@contextlib.contextmanager
def told() -> Iterator[None]:
    """End the program with one line instead of a traceback where the user can do something about it."""
    try:
        yield
    except Refused as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
