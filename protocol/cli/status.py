"""``stokehold status``: what the daemon does now.

The most typed command, so it takes a path of its own: standard library only, and neither argparse nor msgspec. It
prints the reply as it came over the wire, which is the same as the typed client decodes; a test compares the two.
"""

from __future__ import annotations

from protocol.cli.paint import bar, clean, count, duration, paint, size
from protocol.cli.place import find_place
from protocol.cli.plain import print_json, read

TYPE_CHECKING = False  # without importing typing; type checkers know the name
if TYPE_CHECKING:
    import argparse
    from typing import Any

_STATE_COLOURS = {"training": "green", "consolidating": "blue", "idle": "cyan", "paused": "yellow", "blocked": "red"}
_LEVEL_COLOURS = {"low": "yellow", "critical": "red"}


class Options:
    """The options of a plain ``status``, made without argparse."""

    def __init__(self) -> None:
        self.home: str | None = None
        self.socket: str | None = None
        self.json = False


def plain_options(words: list[str]) -> Options | None:
    """Return the options if the words are ``status`` and its options alone, else None: argparse says what is wrong."""
    options = Options()
    commands: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word == "--json":
            options.json = True
        elif name in ("--home", "--socket"):
            taken = value if equals else next(rest, "")
            if not taken or taken.startswith("-"):
                return None
            setattr(options, name[2:], taken)
        else:
            commands.append(word)
    return options if commands == ["status"] else None


def arguments(parser: argparse.ArgumentParser) -> None:
    """``status`` has no options of its own."""


def run(options: Options) -> int:
    """Print the status."""
    status = read(find_place(options.home, options.socket), "ControlSocket", {"type": "get_status"})
    if options.json:
        print_json(status)
    else:
        print("\n".join(lines(status)))
    return 0


def lines(status: dict[str, Any]) -> list[str]:
    """Return the status as a person wants to read it."""
    state = status["state"]
    head = paint(state, "bold", _STATE_COLOURS.get(state, "magenta"))
    about = f"pid {status['pid']}, up {duration(status['uptime_s'])}, {clean(status['home'])}"
    drawn = [f"{head}  {paint(about, 'dim')}"]
    if status["reason"]:
        drawn += _reason(status["reason"])
    if status["job"]:
        drawn += _job(status["job"])
    rows = [("queue", _queue(status["queue"])), ("model", _model(status["model"])), ("disk", _disk(status["disk"]))]
    if status["http"]:
        rows.append(("http", f"http://{_host(status['http']['host'])}:{status['http']['port']}/metrics"))
    if status["restarts"]:
        rows.append(("restarts", f"{count(status['restarts'], 'restart')} of actors; see: stokehold tree"))
    drawn += [f"  {paint(f'{name:<9}', 'dim')}{text}" for name, text in rows]
    return drawn + [f"  {paint('!', 'bold', 'yellow')} {clean(warning)}" for warning in status["warnings"]]


def _reason(reason: str) -> list[str]:
    """A reason ends with the command that ends it, in parentheses; show that on a line of its own."""
    text, opened, remedy = reason.rpartition(" (")
    if not opened or not remedy.endswith(")"):
        return [f"  {clean(reason)}"]
    return [f"  {clean(text)}", f"  {paint('→', 'dim')} {clean(remedy[:-1])}"]


def _job(job: dict[str, Any]) -> list[str]:
    attempt = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
    first = (
        f"  {paint(clean(job['file']), 'bold')}  {job['phase']}, {job['priority']}{attempt}  {paint(job['id'], 'dim')}"
    )
    share = job["step"] / job["steps_total"] if job["steps_total"] else 0.0
    second = f"  {paint(bar(share), 'green')} {share:4.0%}"
    if job["steps_total"]:
        second += f"  step {job['step']:,} of {job['steps_total']:,}"
    second += f"  {job['samples_done']:,} of {count(job['samples_total'], 'sample')}"
    facts = []
    if job["loss"] is not None:
        facts.append("loss " + paint(f"{job['loss']:.4f}", "bold"))
    if job["tokens_per_s"] is not None:
        facts.append(f"{job['tokens_per_s']:,.0f} tokens/s")
    if job["eta_s"] is not None:
        facts.append(f"{duration(job['eta_s'])} to go")
    return [first, second] + (["  " + "   ".join(facts)] if facts else [])


def _queue(queue: dict[str, int]) -> str:
    waiting = [f"{queue[line]:,} {line}" for line in ("high", "normal", "low") if queue[line]]
    parts = [f"{', '.join(waiting)} waiting" if waiting else "nothing waiting"]
    if queue["inbox"]:
        parts.append(f"{queue['inbox']:,} in the inbox")
    if queue["processing"]:
        parts.append(f"{queue['processing']:,} in processing")
    if queue["failed"]:
        parts.append(paint(f"{queue['failed']:,} failed", "red"))
    return ", ".join([*parts, f"{queue['done']:,} done"])


def _model(model: dict[str, Any]) -> str:
    version = "none published yet" if model["version"] is None else f"version {model['version']}"
    behind = f", {count(model['behind_steps'], 'step')} not yet published" if model["behind_steps"] else ""
    return f"{version}, step {model['step']:,}{behind}"


def _disk(disk: dict[str, Any]) -> str:
    level = disk["level"]
    warning = "" if level == "ok" else f"  {paint(level, 'bold', _LEVEL_COLOURS[level])}"
    return f"{size(disk['free_bytes'])} free{warning}"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
