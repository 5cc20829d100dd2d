"""``config``: checked with no daemon, shown and reloaded with one."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

from protocol.home import Home
from tests.protocol.cli.conftest import Run


def test_check_of_a_sound_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "good.toml"
    file.write_text('[disk]\nrefuse_below = "1GB"\nwarn_below = "2GB"\n')
    done = run("config", "check", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 settings given" in done.stdout
    assert json.loads(run("config", "check", file, "--json").stdout) == {
        "valid": True, "problems": [], "home": str(tmp_path),
    }  # fmt: skip


def test_check_names_file_line_key_and_what_would_be_right(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[disk]\nrefuse_bellow = "1GB"\nevery = "often"\n')
    done = run("config", "check", file)
    assert (done.returncode, done.stdout) == (78, "")
    assert f"{file}:2: disk.refuse_bellow" in done.stderr and "disk.refuse_below" in done.stderr
    assert f"{file}:3: disk.every" in done.stderr and "30s" in done.stderr
    problems = json.loads(run("config", "check", file, "--json").stdout)["problems"]
    assert [problem["key"] for problem in problems] == ["disk.refuse_bellow", "disk.every"]


def test_check_of_the_homes_own_file(run: Run, home: Home) -> None:
    assert run("config", "check", "--home", home.root).returncode == 78
    home.settings.write_text("")
    assert run("config", "check", "--home", home.root).returncode == 0


def test_show_is_toml_with_where_each_value_came_from(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    out = run("config", "show", "--home", home.root).stdout
    assert "# /some/file.toml:3" in out
    shown = tomllib.loads(out)
    assert shown["disk"]["refuse_below"] == 10**9  # not the 953.7MiB that it nearly is
    assert shown["disk"]["warn_below"] == "2GiB"
    assert shown["inbox"]["settle"] == "2s"
    assert shown["training"]["learning_rate"] == 2e-4
    assert shown["supervision"] == {"TrainerActor": {"shutdown": "1m30s"}}
    plain = json.loads(run("config", "show", "--json", "--home", home.root).stdout)
    assert (plain["revision"], plain["values"]["disk"]["refuse_below"]) == (4, 10**9)


def test_reload(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    done = run("config", "reload", "--home", home.root)
    assert (done.returncode, done.stdout) == (0, "")
    assert "changed disk.every" in done.stderr
    (home.root / "refuse-reload").touch()
    done = run("config", "reload", "--home", home.root)
    assert done.returncode == 1
    assert "http.port (restart)" in done.stderr
    done = run("config", "reload", "--json", "--home", home.root)
    assert done.returncode == 1
    assert json.loads(done.stdout)["standing_in_the_way"] == ["http.port (restart)"]


def test_the_schema_is_printed_with_no_daemon(run: Run) -> None:
    done = run("config", "schema")
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    keep = made["$defs"]["QueueSection"]["properties"]["keep_done"]
    assert keep["x-mark"] in ("live", "next_job", "restart", "home")
    assert json.loads(run("config", "schema", "--json").stdout) == made
