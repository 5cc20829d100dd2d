"""``make run``: a daemon on the quick-start settings learns from the sample files while you watch.

Run: ``python -P -m actors.tools.demo``. The daemon runs in a session of its own; Ctrl-C here stops it gently, and the
next run goes on where this one stopped. At the end the daemon is stopped, and the model writes a few lines.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from protocol.home import Home
from protocol.quick import Failed, NoDaemon, ask
from protocol.settings import load

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "configs" / "quickstart.toml"
SAMPLE = ROOT / "configs" / "sample"
STOKEHOLD = [sys.executable, "-P", "-m", "protocol.cli.main"]
PROMPTS = (
    "Who was the 37th President of the United States?\n",
    "What was the name of the first artificial Earth satellite?\n",
)
SPARKS = "▁▂▃▄▅▆▇█"


class DaemonDied(Exception):
    """The daemon ended while we watched it."""


def main() -> int:
    console = Console()
    home = _home()
    daemon = _start(home, console)
    try:
        jobs = _submit(home)
        _watch(home, jobs, daemon, console)
        _report(home, console)
    except KeyboardInterrupt:
        console.print(
            "\nStopping gently: one optimizer step, one checkpoint. [bold]make run[/bold] goes on from there."
        )
    except DaemonDied as error:
        console.print(f"[red]{error}[/red]")
        return 1
    finally:
        _stop(home, daemon)
    return 0


def _home() -> Home:
    config = load(SETTINGS).config
    return Home((SETTINGS.parent / config.daemon.home).resolve())


# ---------------------------------------------------------------- the daemon


def _start(home: Home, console: Console) -> subprocess.Popen[bytes] | None:
    """Start the daemon, unless one tends this home already. Return it, or None if it was there."""
    if _status(home) is not None:
        console.print(f"A daemon tends [bold]{home.root}[/bold] already; watching it.")
        return None
    console.print(f"Starting the daemon: [bold]stokehold run {_shown(SETTINGS)}[/bold]   (home: {_shown(home.root)})")
    daemon = subprocess.Popen([*STOKEHOLD, "run", str(SETTINGS)], start_new_session=True, stdin=subprocess.DEVNULL)
    while _status(home) is None:
        if daemon.poll() is not None:
            raise SystemExit(f"the daemon ended with exit code {daemon.returncode}; what it said stands above")
        time.sleep(0.1)
    return daemon


def _stop(home: Home, daemon: subprocess.Popen[bytes] | None) -> None:
    if daemon is not None and daemon.poll() is None:
        subprocess.run([*STOKEHOLD, "stop", "--home", str(home.root)], check=False, stdout=subprocess.DEVNULL)
        daemon.wait()


def _status(home: Home) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = ask(str(home.socket), "ControlSocket", {"type": "get_status"}, 5.0)
    except (NoDaemon, Failed):
        return None
    return answer


# ---------------------------------------------------------------- the sample files


def _submit(home: Home) -> list[str]:
    """Submit each sample file once a round; a round that was interrupted is gone on with. Return the jobs' ids."""
    finished = {(row["file"], row["id"]) for row in _ask(home, {"type": "get_history"}) if row["outcome"] == "trained"}
    files = sorted(SAMPLE.glob("*.jsonl"))
    done = min(sum(1 for file, _ in finished if file == path.name) for path in files)
    return [_submit_one(home, path, done) for path in files]


def _submit_one(home: Home, path: Path, number: int) -> str:
    digest = hashlib.sha256(f"{home.root} {number} ".encode() + path.read_bytes()).hexdigest()[:26]
    name = f"@{digest}-normal@{path.name}"
    aside = home.inbox / f".{name}.tmp"
    shutil.copyfile(path, aside)
    with aside.open("rb+") as copy:
        os.fsync(copy.fileno())
    aside.rename(home.inbox / name)
    accepted: dict[str, Any] = _ask(home, {"type": "wait_accepted", "submit_id": digest}, 120.0)
    return str(accepted["id"])


def _ask(home: Home, body: dict[str, Any], timeout: float = 30.0) -> Any:
    return ask(str(home.socket), "QueueManager", body, timeout)


# ---------------------------------------------------------------- watching


def _watch(home: Home, jobs: list[str], daemon: subprocess.Popen[bytes] | None, console: Console) -> None:
    """Show progress and the falling loss until all of these jobs are over and the model is published."""
    losses: list[float] = []
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"), console=console,
    )  # fmt: skip
    seen: dict[str, TaskID] = {}
    with Live(bars, console=console, refresh_per_second=8) as live:
        while True:
            now = _status(home)
            if now is None:
                if daemon is None or daemon.poll() is not None:
                    raise DaemonDied("the daemon is gone: see logs/ in its home")
                time.sleep(0.2)
                continue
            _draw(now, bars, seen, losses)
            live.update(_sheet(now, bars, losses))
            if now["state"] == "idle" and not now["model"]["behind_steps"] and _over(home, jobs):
                return
            time.sleep(0.1)


def _over(home: Home, jobs: list[str]) -> bool:
    return set(jobs) <= {row["id"] for row in _ask(home, {"type": "get_history"})}


def _draw(now: dict[str, Any], bars: Progress, seen: dict[str, TaskID], losses: list[float]) -> None:
    job = now["job"]
    if job is None:
        return
    if job["id"] not in seen:
        for bar in seen.values():
            bars.update(bar, completed=bars.tasks[bar].total)
        seen[job["id"]] = bars.add_task(job["file"], total=max(job["steps_total"], 1), loss="")
    loss = job["loss"]
    if loss is not None and (not losses or losses[-1] != loss):
        losses.append(loss)
    bars.update(
        seen[job["id"]],
        total=max(job["steps_total"], 1),
        completed=job["step"],
        loss=f"loss {loss:.3f}" if loss is not None else job["phase"],
    )


def _sheet(now: dict[str, Any], bars: Progress, losses: list[float]) -> Any:
    head = Text.assemble(("● ", "green" if now["state"] == "training" else "yellow"), (now["state"], "bold"))
    if now["reason"]:
        head.append(f"  {now['reason']}", "dim")
    if (job := now["job"]) and job["tokens_per_s"]:
        head.append(f"  {job['tokens_per_s']:,.0f} tokens/s", "dim")
    return Group(head, bars, Text(f"loss {_spark(losses)}", "cyan")) if losses else Group(head, bars)


def _spark(values: list[float], width: int = 72) -> str:
    """Draw a curve of one line: the newest values, each the mean of its share."""
    share = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for part in (values[i : i + share] for i in range(0, len(values), share))]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return (
        f"{values[0]:.2f} " + "".join(SPARKS[round((mean - low) / span * 7)] for mean in means) + f" {values[-1]:.2f}"
    )


# ---------------------------------------------------------------- the end


def _report(home: Home, console: Console) -> None:
    console.print("\nAll files are trained and filed away:")
    for row in reversed(_ask(home, {"type": "get_history"})):
        if row["outcome"] == "trained":
            console.print(
                f"  {row['file']}: {row['samples']} samples, {row['steps']} steps, "
                f"loss {row['first_loss']:.3f} → {row['last_loss']:.3f}",
                highlight=False,
            )
    console.print(
        f"\nThe model: [bold]{_shown(home.current)}[/bold], for AutoModelForCausalLM.from_pretrained. It writes:"
    )
    for prompt, text in zip(PROMPTS, _write(home), strict=True):
        console.print(f"  [dim]{prompt.strip()}[/dim] {text}", highlight=False)
    console.print(
        "\nDrop a .jsonl into the inbox of a running daemon and it goes on. [bold]stokehold --help[/bold]"
    )


def _write(home: Home) -> list[str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(home.current)
    tokenizer = AutoTokenizer.from_pretrained(home.current)
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=24, do_sample=False)
        texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip().replace("\n", " "))
    return texts


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
