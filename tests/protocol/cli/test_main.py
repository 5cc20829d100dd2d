"""What holds for every command: words, exit codes, streams, colours."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from protocol.cli.commands import MODULES
from protocol.home import Home
from tests.protocol.cli.conftest import COMMAND, Run, environment

TODAY = [
    "run",
    "init",
    "status",
    "tree",
    "actor",
    "send",
    "submit",
    "queue",
    "pause",
    "resume",
    "skip",
    "stop",
    "history",
    "models",
    "checkpoints",
    "consolidate",
    "config",
    "logs",
    "events",
    "metrics",
    "doctor",
    "plan",
    "preview",
    "protocol",
]


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"stokehold {metadata.version('stokehold')}\n")


def test_help_names_the_commands_of_today_and_no_others(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    below = done.stdout.partition("commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in below.splitlines()] == TODAY
    assert done.stderr == ""


def test_every_command_explains_itself(run: Run) -> None:
    for command in MODULES:
        done = run(command, "--help")
        assert done.returncode == 0, command
        assert done.stdout.startswith(f"usage: stokehold {command}")
        assert "--home" in done.stdout and "--json" in done.stdout, command


def test_no_command_is_misuse(run: Run) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "commands:" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["statsu"], ["status", "--bogus"], ["status", "extra"], ["queue"], ["queue", "burn"], ["submit"],
     ["queue", "move", "x"], ["queue", "move", "x", "--priority", "urgent"],
     ["stop", "--now", "--after-file"], ["--hom", "x", "status"], ["history", "--limit", "-1"],
     ["logs", "-n", "many"], ["preview", "x.jsonl", "--rows", "0"]],
)  # fmt: skip
def test_misuse_exits_2_and_says_so_on_stderr(run: Run, words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr


def test_a_mistyped_command_gets_a_hint(run: Run) -> None:
    assert "did you mean: stokehold status" in run("statsu").stderr


NEEDS_A_DAEMON = [
    ["status"], ["status", "--json"], ["tree"], ["queue", "list"], ["queue", "cancel", "x"], ["pause"], ["resume"],
    ["skip"], ["stop"], ["history"], ["consolidate"], ["consolidate", "--now"], ["config", "show"],
    ["config", "reload"], ["events"], ["metrics"],
]  # fmt: skip


@pytest.mark.parametrize("words", NEEDS_A_DAEMON, ids=" ".join)
def test_no_daemon_exits_3_and_says_where_and_what_next(run: Run, home: Home, words: list[str]) -> None:
    done = run(*words, "--home", home.root)
    assert done.returncode == 3
    assert done.stdout == ""
    assert str(home.socket) in done.stderr
    assert f"stokehold run --home {home.root}" in done.stderr


def test_a_dead_socket_is_no_daemon(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    daemon.kill()
    daemon.wait()
    assert home.socket.is_socket()
    assert run("status", "--home", home.root).returncode == 3
    assert run("tree", "--home", home.root).returncode == 3


@pytest.mark.parametrize(
    "words", [["status"], ["tree"], ["models", "list"], ["submit", "/etc/hostname"], ["run"], ["logs"]], ids=" ".join
)
def test_no_home_is_misuse(run: Run, words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert "--home" in done.stderr


def test_options_may_stand_before_and_after(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    wanted = run("queue", "list", "--json", "--home", home.root).stdout
    assert wanted.startswith("[")
    for words in (
        ["--home", home.root, "--json", "queue", "list"],
        ["--json", "queue", "--home", home.root, "list"],
        ["queue", "--json", "list", f"--home={home.root}"],
        ["--socket", home.socket, "queue", "list", "--json"],
        ["queue", "list", "--json", "--socket", home.socket],
        ["--home", "/nowhere", "queue", "list", "--json", "--home", home.root],
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (0, wanted), words


def test_the_home_is_found_by_environment_and_by_the_current_folder(
    run: Run, home: Home, daemon: subprocess.Popen[bytes]
) -> None:
    assert run("tree", env={"STOKEHOLD_HOME": str(home.root)}).returncode == 0
    assert run("status", env={"STOKEHOLD_HOME": str(home.root)}).returncode == 0
    assert run("status", cwd=home.root).returncode == 0
    assert run("--home", "/nowhere", "status", env={"STOKEHOLD_HOME": str(home.root)}).returncode == 3


def test_a_socket_path_over_107_bytes_works(
    run: Run, tmp_path: Path, home: Home, daemon: subprocess.Popen[bytes]
) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (deep / "control.sock").symlink_to(home.socket)
    for command in ("status", "tree"):
        assert run("--socket", deep / "control.sock", command).returncode == 0


@pytest.mark.parametrize("command", ["status", "tree", "doctor"])
def test_colours_only_on_a_terminal(run: Run, home: Home, daemon: subprocess.Popen[bytes], command: str) -> None:
    assert "\x1b" not in run(command, "--home", home.root).stdout
    assert "\x1b[" in _on_a_terminal(home, command, {"TERM": "xterm"})
    assert "\x1b" not in _on_a_terminal(home, command, {"TERM": "xterm", "NO_COLOR": "1"})
    assert "\x1b" not in _on_a_terminal(home, command, {"TERM": "dumb"})


def _on_a_terminal(home: Home, command: str, env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, command, "--home", home.root], stdout=theirs, stderr=theirs, env=environment(env)
    )
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # how a terminal says that nobody is left at the other end
        pass
    finally:
        os.close(ours)
    assert process.wait() in (0, 1)
    return seen.decode()


def test_a_reader_that_leaves_is_no_traceback(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    done = subprocess.run(
        f"{' '.join(COMMAND)} config show --home {home.root} | true; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.stdout.strip() in ("0", "141")
    assert done.stderr == ""


def test_a_full_disk_under_the_output_is_a_failure(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "status", "--json", "--home", home.root], stdout=full, stderr=subprocess.PIPE, text=True,
            env=environment(), check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_json_in_any_encoding(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    (home.root / "canned.json").write_text(json.dumps({"warnings": ["ä \U0001f600"]}))
    for env in (ascii_only, {"PYTHONIOENCODING": "utf-8"}):
        status = json.loads(run("status", "--json", "--home", home.root, env=env).stdout)
        assert status["job"]["file"] == "chät.jsonl"
        assert status["warnings"] == ["ä \U0001f600"]


def test_what_went_wrong_cannot_command_the_terminal(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    done = run("queue", "show", "\x1b[2J", "--home", home.root)
    assert done.returncode == 1
    assert "no job is called \\x1b[2J" in done.stderr


def test_output_survives_a_terminal_that_knows_only_ascii(
    run: Run, home: Home, daemon: subprocess.Popen[bytes]
) -> None:
    done = run("status", "--home", home.root, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"})
    assert done.returncode == 0, done.stderr
    assert "training" in done.stdout


def test_every_command_module_is_named_once() -> None:
    """A command that is listed has its module, and a module that is there is listed or shared."""
    here = Path(__file__).parents[3] / "protocol" / "cli"
    for module, _ in MODULES.values():
        assert (here / f"{module}.py").exists() or (here / module / "__init__.py").exists(), module
    assert all(re.fullmatch("[a-z]+", name) for name in MODULES)
