"""``stokehold config``: check a file, show what is in force, print the schema, reload."""

from __future__ import annotations

import argparse
from pathlib import Path

from protocol.cli.commands import subcommands
from protocol.cli.failure import BAD_CONFIG, FAILED, CommandFailed
from protocol.cli.folder import home_folder
from protocol.cli.paint import count, paint
from protocol.cli.place import find_place
from protocol.cli.plain import print_json, read


def arguments(parser: argparse.ArgumentParser) -> None:
    words = subcommands(
        parser,
        check="read a file as the daemon would; exit 78 if it would be refused (needs no daemon)",
        show="the settings in force, and where each came from",
        schema="the JSON Schema of the file: each key, its values, when a change takes effect (needs no daemon)",
        reload="read the file again; apply all of it or nothing",
    )
    words["check"].add_argument("file", nargs="?", metavar="FILE", help="default: HOME/stokehold.toml")


def run(options: argparse.Namespace) -> int:
    """Do what the word below ``config`` says."""
    return {"check": _check, "show": _show, "schema": _schema, "reload": _reload}[options.action](options)


def _check(options: argparse.Namespace) -> int:
    from protocol.settings import ConfigError, load

    path = Path(options.file) if options.file else home_folder(options) / "stokehold.toml"
    try:
        loaded = load(path)
    except ConfigError as error:
        if options.json:
            problems = [{"where": p.where, "key": p.key, "message": p.message} for p in error.problems]
            print_json({"valid": False, "problems": problems})
        raise CommandFailed(
            "\n".join([f"{path} would be refused:", *map(str, error.problems)]),
            f"correct it and say again: stokehold config check {path}",
            BAD_CONFIG,
        ) from error
    given = sum(origin not in ("default", "command line") for origin in loaded.origins.values())
    if options.json:
        print_json({"valid": True, "problems": [], "home": str(loaded.home)})
    else:
        print(f"{path} is sound: {count(given, 'setting')} given, the others at their defaults; home {loaded.home}")
    return 0


def _show(options: argparse.Namespace) -> int:
    shown = read(find_place(options.home, options.socket), "ControlSocket", {"type": "show_config"})
    if options.json:
        print_json(shown)
        return 0
    print(paint(f"# revision {shown['revision']}", "dim"))
    tables: dict[str, list[tuple[str, str]]] = {}
    for path, text in shown["written"].items():
        section, _, key = path.rpartition(".")
        tables.setdefault(section, []).append((f"{key} = {text}", shown["origins"].get(path, "default")))
    for section, lines in tables.items():
        _print_table(section, lines)
    return 0


def _print_table(name: str, lines: list[tuple[str, str]]) -> None:
    print(f"\n{paint(f'[{name}]', 'bold')}")
    width = min(max(len(text) for text, _ in lines), 48)
    for text, origin in lines:
        print(f"{text:<{width}}  {paint(f'# {origin}', 'dim')}" if origin != "default" else text)


def _schema(options: argparse.Namespace) -> int:
    from protocol.settings import schema

    print_json(schema())
    return 0


def _reload(options: argparse.Namespace) -> int:
    from protocol.cli.talk import ask, print_record, say
    from protocol.messages.system import ReloadConfig

    result = ask(options, "SignalHandler", ReloadConfig(), 30.0)
    if options.json:
        print_record(result)
    if result.applied:
        if not options.json:
            say(
                f"revision {result.revision}: "
                + (f"changed {', '.join(result.changed)}" if result.changed else "nothing had changed")
            )
        return 0
    raise CommandFailed(
        "\n".join([f"nothing was changed: {result.reason}", *result.standing_in_the_way]),
        "put these back, or stop the daemon and start it again"
        if result.standing_in_the_way
        else "check the file: stokehold config check",
        FAILED,
    )
