"""``stokehold plan [FILE]``: whether it fits and how long it takes, said before anything trains.

Run: ``python -P -m actors.tools.plan [FILE] [--config PATH] [--home DIR] [--json]``. Exits 0 if the settings fit this
machine and the file would be taken, 1 if not. Nothing is written, and no weights are read or fetched.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.tools.opening import FAILED, Opened, Refused, add_options, as_trained, open_settings, open_tokenizer, told
from actors.tools.shape import ShapedModel, Sizes
from actors.tools.speed import Speed, speed_of
from actors.tools.survey import Reader, Sample, Survey
from actors.tools.verdict import DiskVerdict, MemoryVerdict, Suggestion, judge_disk, judge_memory, suggest
from actors.trainer.adapter import UnsuitableTarget
from actors.trainer.data import count_steps
from actors.trainer.engine import Encoded
from protocol.cli.paint import count, duration, paint, size
from protocol.config import Config
from supervisor.durable import Disk

READ_FOR = 30.0
"""Seconds that reading the file may take; of a larger one the rest is extrapolated."""
SAMPLES = 400


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What training one file takes."""

    path: str
    rows: int
    refused: int
    truncated: int
    tokens: int
    """Of one epoch, prompts included."""
    trained_tokens: int
    longest: int
    epochs: int
    steps: int
    seconds: float
    whole: bool
    """False: only a part was read, and the counts are extrapolated from it."""
    refusal: str | None
    """Why the file would go to ``queue/failed/`` at once, or None."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole answer; ``--json`` prints it."""

    source: str
    method: str
    max_length: int
    sizes: Sizes
    memory: MemoryVerdict
    disk: DiskVerdict
    speed: Speed
    file: FilePlan | None
    suggestion: Suggestion | None

    @property
    def fits(self) -> bool:
        return self.memory.fits and self.disk.fits

    def as_json(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        plain["memory"]["need_bytes"] = self.memory.need.total
        return {"fits": self.fits, **plain}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stokehold plan", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", nargs="?", type=Path, help="a JSONL file")
    add_options(parser)
    options = parser.parse_args(arguments)
    with told():
        opened = as_trained(open_settings(options))
        plan = make_plan(opened, options.file)
        print(json.dumps(plan.as_json(), indent=1)) if options.json else show(plan, opened.config)
    return 0 if plan.fits and (plan.file is None or plan.file.refusal is None) else FAILED


def make_plan(opened: Opened, path: Path | None) -> Plan:
    """Look at the machine, the model's shape and the file.

    Raises:
        Refused: the file or the model cannot be read.
    """
    config, tokenizer = opened.config, open_tokenizer(opened)
    survey, samples = Reader(config, tokenizer).read(path, SAMPLES, READ_FOR) if path is not None else (None, [])
    longest = max(survey.lengths, default=None) if survey is not None else None
    try:
        model = ShapedModel(config, tokenizer)
    except (OSError, UnsuitableTarget) as error:
        raise Refused(str(error)) from error
    memory = judge_memory(model, config, longest)
    speed = speed_of(config, tokenizer, model.sizes, _rows(samples, config), memory.fits)
    return Plan(
        source=config.model.source,
        method=config.training.method,
        max_length=config.training.max_length,
        sizes=model.sizes,
        memory=memory,
        disk=judge_disk(model, config, opened.home, Disk()),
        speed=speed,
        file=_file_plan(path, survey, config, speed) if path is not None and survey is not None else None,
        suggestion=None if memory.fits else suggest(config, tokenizer, longest),
    )


def _rows(samples: list[Sample], config: Config) -> list[Encoded]:
    """Return rows to measure with: the file's, or without a file full ones of one token."""
    if samples:
        return [sample.encoded for sample in samples]
    length = config.training.max_length
    return [Encoded([0] * length, [True] * length)] * 8


def _file_plan(path: Path, survey: Survey, config: Config, speed: Speed) -> FilePlan:
    epochs = config.training.epochs
    tokens = survey.scaled(survey.tokens)
    rows = survey.scaled(survey.rows)
    cut = [min(length, config.training.max_length) for length in survey.lengths]
    # in the order of the file: another one fills the steps a little differently
    steps = survey.scaled(count_steps(range(len(cut)), 0, cut, config.training.batch_tokens)) * epochs
    return FilePlan(
        path=str(path),
        rows=rows,
        refused=survey.scaled(survey.refused),
        truncated=survey.scaled(survey.truncated),
        tokens=tokens,
        trained_tokens=survey.scaled(survey.trained_tokens),
        longest=max(survey.lengths, default=0),
        epochs=epochs,
        steps=steps,
        seconds=tokens * epochs / speed.tokens_per_s,
        whole=survey.share >= 1.0,
        refusal=_refusal(survey, config),
    )


def _refusal(survey: Survey, config: Config) -> str | None:
    if not survey.rows:
        return "no row of it can be trained on"
    if survey.refused and config.data.on_bad_line == "refuse":
        return 'one bad line refuses a file as long as data.on_bad_line = "refuse"'
    return None


def show(plan: Plan, config: Config) -> None:
    """Print the plan for people."""
    sizes, memory, disk = plan.sizes, plan.memory, plan.disk
    _line("model", f"{plan.source}, {plan.method}: {count(sizes.parameters, 'parameter')}, {sizes.trained:,} trained")
    need = memory.need
    _line(
        "memory",
        f"{size(need.total)} of {size(memory.available_bytes)} on {memory.device}",
        memory.fits,
    )
    names = ("version",) if need.version > need.stepping else ("gradients", "activations", "logits")
    parts = {name: getattr(need, name) for name in ("weights", "optimizer", *names, "program")}
    _line("", ", ".join(f"{name} {size(value)}" for name, value in parts.items()))
    _line("disk", f"{size(disk.to_come_bytes)} to come, {size(disk.free_bytes)} free", disk.fits)
    _line(
        "",
        f"checkpoint {size(disk.checkpoint_bytes)} (keep {config.checkpoint.keep}), version {size(disk.version_bytes)} "
        f"(keep {config.publish.keep}), {size(disk.held_back_bytes)} stay free",
    )
    _line("speed", f"{_speed(plan.speed.tokens_per_s)} tokens/s, {plan.speed.how}")
    if plan.file is not None:
        _show_file(plan.file, plan.speed)
    if plan.suggestion is not None:
        chosen = ", ".join(f"{key} = {json.dumps(value)}" for key, value in plan.suggestion.settings.items())
        _line("fits with", f"{chosen} ({size(plan.suggestion.memory_bytes)})")
    elif not memory.fits:
        _line("fits with", "no setting of this model: take a smaller one, or a machine with more memory")
    if not disk.fits:
        lacking = disk.held_back_bytes + disk.to_come_bytes - disk.free_bytes
        _line("fits with", f"{size(lacking)} more free, or smaller checkpoint.keep and publish.keep")


def _show_file(file: FilePlan, speed: Speed) -> None:
    about = "" if file.whole else "about "
    _line("file", f"{about}{count(file.rows, 'row')}, {file.tokens:,} tokens, {file.trained_tokens:,} of them trained")
    if file.truncated:
        _line("", f"{about}{count(file.truncated, 'row')} cut; the longest has {file.longest:,} tokens")
    if file.refused:
        _line("", paint(f"{about}{count(file.refused, 'row')} refused; stokehold preview names them", "yellow"))
    if file.refusal:
        _line("", paint(f"it would go to queue/failed/ at once: {file.refusal}", "red", "bold"))
        return
    sure = "about" if speed.measured else "perhaps"
    passes = count(file.epochs, "epoch")
    _line("time", f"{sure} {duration(file.seconds)} for {count(file.steps, 'step')} in {passes}")


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _line(name: str, text: str, fits: bool | None = None) -> None:
    verdict = {None: "", True: paint("  fits", "green"), False: paint("  does not fit", "red", "bold")}[fits]
    print(f"{name:<10}{text}{verdict}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
