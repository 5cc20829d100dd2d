"""``stokehold init DIR``: make a home."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from protocol.cli.failure import CommandFailed
from protocol.cli.plain import print_json
from protocol.cli.template import TEMPLATE
from protocol.home import Home


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", help="the home to make; may exist if it is empty")


def run(options: argparse.Namespace) -> int:
    """Make the folders and write ``stokehold.toml``, with every setting in it, commented."""
    home = Home(Path(options.dir))
    if os.path.lexists(home.settings):
        raise CommandFailed(f"{home.root} is a home already", f"start it with: stokehold run --home {home.root}")
    try:
        if home.root.exists() and (foreign := _foreign(home)):
            raise CommandFailed(f"{home.root} is not empty: it holds {foreign}", "name a folder that is new or empty")
        home.root.parent.mkdir(parents=True, exist_ok=True)
        for folder in home.folders:
            folder.mkdir(mode=0o755, exist_ok=True)
        # Whoever can reach the socket commands the daemon, whatever the umask was.
        home.run.chmod(0o700)
        # Written last, and never over another: a home without it was not finished, and init may be said again.
        with home.settings.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CommandFailed(
            f"cannot make {error.filename or home.root}: {error.strerror}", "name a folder where you may write"
        ) from error
    if options.json:
        print_json({"home": str(home.root.resolve()), "config": str(home.settings.resolve())})
        return 0
    print(f"made the home {home.root}")
    print(f"  its settings   {home.settings}")
    print("  its model      a toy, until you name a real one there: model.source, before the first training fixes it")
    print(f"  start it       stokehold run --home {home.root}")
    print(f"  give it work   stokehold submit --home {home.root} FILE.jsonl    or copy files into {home.inbox}")
    return 0


def _foreign(home: Home) -> str | None:
    """Return the name of something in the folder that no home has, so that ``init ~`` does not litter."""
    ours = {folder.relative_to(home.root).parts[0] for folder in home.folders if folder != home.root}
    return next((entry.name for entry in home.root.iterdir() if entry.name not in ours), None)
