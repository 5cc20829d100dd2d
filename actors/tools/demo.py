"""``make run``: a daemon on the quick-start settings learns from the sample files while you watch.

Run: ``python -P -m actors.tools.demo``. The daemon runs in a session of its own, so the Ctrl-C of the terminal reaches
only this program, which then stops it gently; the next run goes on where this one stopped. At the end the daemon is
stopped, and the model writes a few lines. A run after that finds nothing to train, and says so.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from protocol.cli.inbox_copy import put
from protocol.home import Home
from protocol.quick import Failed, NoDaemon, ask
from protocol.settings import load

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "configs" / "quickstart.toml"
SAMPLE = ROOT / "configs" / "sample"
STOKEHOLD = [sys.executable, "-P", "-m", "protocol.cli.main"]
PROMPTS = (
    "Who was the 37th President of the United States?\n",
    "What year was President John F. Kennedy assassinated?\n",
    "What was the name of the first artificial Earth satellite?\n",
)
SPARKS = "▁▂▃▄▅▆▇█"
CURVE = 60
"""Characters of the loss curve."""
PLAIN_EVERY = 5.0
"""Seconds between two lines of progress where there is no terminal to draw on."""


class DaemonDied(Exception):
    """The daemon ended while we watched it."""


def main() -> int:
    console = Console(highlight=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # a closed terminal means Ctrl-C: the daemon stops with it
    home = _home()
    try:
        with _daemon(home, console) as process:
            jobs = _submit(home, console)
            _watch(home, jobs, process, console)
            rows = _rows(home, jobs)
            _report(home, rows, console)
    except KeyboardInterrupt:
        console.print("Stopped. [bold]make run[/bold] goes on from there.")
        return 0
    except (DaemonDied, NoDaemon, Failed) as error:
        console.print(f"[red]{escape(str(error))}[/red]\nIts log: {_shown(home.logs)}. To go on: [bold]make run[/bold]")
        return 1
    return 0 if all(row["outcome"] == "trained" for row in rows) else 1


def _home() -> Home:
    return Home(load(SETTINGS).home.resolve())


# ---------------------------------------------------------------- the daemon


@contextmanager
def _daemon(home: Home, console: Console) -> Iterator[subprocess.Popen[bytes] | None]:
    """A running daemon, stopped gently at the end; None stands for one that was there before us, and stays."""
    if _status(home) is not None:
        console.print(f"A daemon tends {_shown(home.root)} already; it goes on when you leave.")
        yield None
        return
    console.print(f"Starting the daemon: [bold]stokehold run {_shown(SETTINGS)}[/bold]  (home: {_shown(home.root)})")
    with tempfile.TemporaryFile() as said:
        command = [*STOKEHOLD, "run", str(SETTINGS)]
        process = subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=ROOT
        )
        try:
            with console.status("starting"):
                while _status(home) is None:
                    _check(process)
                    time.sleep(0.1)
            yield process
        except KeyboardInterrupt:
            console.print("\nStopping at the next optimizer step, with a checkpoint. Ctrl-C again: at once.")
            raise
        except DaemonDied as error:
            said.seek(0)
            raise DaemonDied(f"{error}\n{said.read().decode(errors='replace')}".rstrip()) from None
        finally:
            _stop(process)


def _check(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        raise DaemonDied("the daemon is gone")
    if process.poll() is not None:
        raise DaemonDied(f"the daemon has ended with exit code {process.returncode}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the daemon with a checkpoint; a Ctrl-C meanwhile ends it at once, at the cost of the steps since the last."""
    while process.poll() is None:
        process.terminate()
        try:
            process.wait()
        except KeyboardInterrupt:
            continue


def _status(home: Home) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = ask(str(home.socket), "ControlSocket", {"type": "get_status"}, 5.0)
    except (NoDaemon, Failed):
        return None
    return answer


def _ask(home: Home, body: dict[str, Any], timeout: float = 30.0) -> Any:
    return ask(str(home.socket), "QueueManager", body, timeout)


# ---------------------------------------------------------------- the sample files


def _submit(home: Home, console: Console) -> list[str]:
    """Submit the sample files that the home does not know yet. Return the jobs' ids."""
    jobs = {_id(home, path): path for path in sorted(SAMPLE.glob("*.jsonl"))}
    over = _ids(home, "get_history")
    known = over | _ids(home, "get_queue")
    if over >= jobs.keys():
        console.print("The sample files are trained already, and nothing is trained twice.")
    elif known & jobs.keys():
        console.print("Going on where the last run stopped.")
    for id, path in jobs.items():
        if id not in known:
            for unfinished in home.inbox.glob(f".@{id}-*"):  # by a run that was killed
                unfinished.unlink()
            put(path, home.inbox, id, "normal")
            _ask(home, {"type": "wait_accepted", "submit_id": id}, 120.0)
    return list(jobs)


def _ids(home: Home, request: str) -> set[str]:
    return {row["id"] for row in _ask(home, {"type": request})}


def _id(home: Home, path: Path) -> str:
    """Return the job's id: the same for the same file in the same home, so that it is never trained twice."""
    return hashlib.sha256(f"{home.root}\n".encode() + path.read_bytes()).hexdigest()[:26]


# ---------------------------------------------------------------- watching


def _watch(home: Home, jobs: list[str], process: subprocess.Popen[bytes] | None, console: Console) -> None:
    """Show progress and the falling loss until these jobs are over and the model is published."""
    sheet = Sheet()
    told = time.monotonic()
    with Live(console=console, refresh_per_second=8) as live:
        while True:
            now = _status(home)
            if now is None:
                _check(process)
                time.sleep(0.2)
                continue
            sheet.take(now)
            live.update(sheet.drawn(now))
            if now["state"] == "idle" and not now["model"]["behind_steps"] and _over(home, jobs):
                sheet.end(_rows(home, jobs))
                live.update(sheet.drawn(now))
                return
            if not console.is_terminal and time.monotonic() - told > PLAIN_EVERY:
                told = time.monotonic()
                console.print(sheet.line(now), markup=False)
            time.sleep(0.1)


def _rows(home: Home, jobs: list[str]) -> list[dict[str, Any]]:
    """Return how these jobs ended, in the order in which they did."""
    return [row for row in reversed(_ask(home, {"type": "get_history"})) if row["id"] in jobs]


def _over(home: Home, jobs: list[str]) -> bool:
    return _ids(home, "get_history") >= set(jobs)


class Sheet:
    """What is drawn: a bar for each file, and the loss curve of the one in training."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}", markup=False),
        )
        self._tasks: dict[str, TaskID] = {}
        self._losses: list[float] = []

    def take(self, now: dict[str, Any]) -> None:
        """Note a new status."""
        job = now["job"]
        if job is None:
            return
        if job["id"] not in self._tasks:
            self.complete()
            self._losses = []
            self._tasks[job["id"]] = self._bars.add_task(job["file"], total=None, told="")
        if job["loss"] is not None and job["loss"] not in self._losses[-1:]:
            self._losses.append(job["loss"])
        told = f"loss {self._losses[0]:.2f} → {self._losses[-1]:.2f}" if self._losses else job["phase"]
        if self._losses and job["eta_s"]:
            told += f", {job['eta_s']:.0f} s to go"
        self._bars.update(self._tasks[job["id"]], total=job["steps_total"] or None, completed=job["step"], told=told)

    def complete(self) -> None:
        """The file of the last bar is done; its last steps may have passed between two looks."""
        for task in self._bars.tasks[-1:]:
            told = str(task.fields["told"]).partition(",")[0]
            self._bars.update(task.id, total=task.total or 1, completed=task.total or 1, told=told)

    def end(self, rows: list[dict[str, Any]]) -> None:
        """All is over: the history knows the last loss of each file, which may have passed between two looks."""
        self.complete()
        for row in rows:
            if row["id"] in self._tasks and row["last_loss"] is not None:
                self._bars.update(self._tasks[row["id"]], told=_fall(row))

    def drawn(self, now: dict[str, Any]) -> Group:
        head = Text.assemble(
            ("● ", "green" if now["state"] in ("training", "idle") else "yellow"), (now["state"], "bold")
        )
        if now["reason"]:
            head.append(f"  {now['reason']}", "dim")
        if (job := now["job"]) and job["tokens_per_s"]:
            head.append(f"  {job['tokens_per_s']:,.0f} tokens/s", "dim")
        curve = [Text(f"loss {_spark(self._losses)}", "cyan")] if len(self._losses) > 1 else []
        return Group(head, self._bars, *curve)

    def line(self, now: dict[str, Any]) -> str:
        """Return one line of text, for a log."""
        if now["job"] is None:
            return f"{now['state']}  {now['reason'] or ''}".rstrip()
        task = self._bars.tasks[-1]
        steps = f"step {task.completed:.0f} of {task.total or 0:.0f}"
        return f"{now['state']}  {task.description}  {steps}  {task.fields['told']}"


def _spark(values: list[float]) -> str:
    """Draw a curve of one line, each character the mean of its share of the values."""
    share = max(1, -(-len(values) // CURVE))
    means = [sum(part) / len(part) for part in (values[i : i + share] for i in range(0, len(values), share))]
    low, high = min(means), max(means)
    return "".join(SPARKS[round((mean - low) / ((high - low) or 1.0) * 7)] for mean in means)


# ---------------------------------------------------------------- the end


def _report(home: Home, rows: list[dict[str, Any]], console: Console) -> None:
    """Say how each file ended, where the model is and what it writes, and what to do next."""
    console.print()
    for row in rows:
        read = f"{row['samples']:,} rows in {row['steps']} steps"
        loss = "" if row["last_loss"] is None else f", {_fall(row)}"
        console.print(f"  {row['file']}: {row['outcome']}, {read}{loss}", markup=False)
    console.print(f"\nThe model is in [bold]{_shown(home.current)}[/bold], as transformers reads it.")
    with console.status("asking it"):
        answers = _answers(home.current)
    console.print("Asked what stands in 3-trivia.jsonl, it writes:")
    for prompt, text in zip(PROMPTS, answers, strict=True):
        console.print(f"  [dim]{prompt.strip()}[/dim]\n    {escape(text)}")
    console.print(
        f"\nTo go on:                 .venv/bin/stokehold run {_shown(SETTINGS)}"
        f"\nand, in another terminal: .venv/bin/stokehold submit --home {_shown(home.root)} FILE.jsonl"
        f"\nFrom the beginning again: rm -r {_shown(home.root)} && make run",
        soft_wrap=True,
    )


def _fall(row: dict[str, Any]) -> str:
    return f"loss {row['first_loss']:.2f} → {row['last_loss']:.2f}"


def _answers(model_folder: Path) -> list[str]:
    """Let the published model answer, greedily, as any program would that knows nothing of stokehold."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=24, do_sample=False)
        texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip().replace("\n", " "))
    return texts


def _shown(path: Path) -> str:
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
