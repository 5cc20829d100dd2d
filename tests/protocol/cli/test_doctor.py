"""``doctor``: each check finds what it is for, says what to do, and is quiet otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.cli.doctor import OF_ENVIRONMENT, OF_HOME, disk, filesystem, head, inotify, orphans, permissions, sqlite
from protocol.home import Home
from supervisor import custody
from tests.protocol.cli import homes
from tests.protocol.cli.conftest import ROOT, Run, environment


def findings(run: Run, *words: object, **more: Any) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in json.loads(run("doctor", "--json", *map(str, words), **more).stdout):
        found.setdefault(row["check"], []).append(row)
    return found


def test_every_check_reports(run: Run, home: Home) -> None:
    assert list(findings(run, "--home", home.root)) == [*OF_ENVIRONMENT, *OF_HOME]
    assert list(findings(run)) == list(OF_ENVIRONMENT)


def test_every_check_is_a_file_and_every_file_a_check() -> None:
    files = {path.stem for path in (ROOT / "protocol" / "cli" / "doctor").glob("*.py")}
    assert files == {*OF_ENVIRONMENT, *OF_HOME, "__init__", "finding"}


def test_a_person_reads_findings_with_remedies(run: Run, home: Home) -> None:
    home.settings.write_text('[disk]\nrefuse_below = "900TB"\nwarn_below = "901TB"\n')
    done = run("doctor", "--home", home.root)
    assert done.returncode == 1
    assert "✗ disk" in done.stdout
    assert "stokehold config reload" in done.stdout


def test_supervisord_beside_us(run: Run, tmp_path: Path) -> None:
    installed = tmp_path / "site" / "supervisor-4.3.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: supervisor\nVersion: 4.3.0\n")
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path / 'site'}"}
    (clash,) = findings(run, env=env)["clash"]
    assert clash["level"] == "trouble"
    assert "4.3.0" in clash["what"] and "environment of its own" in clash["remedy"]
    assert run("doctor", env=env).returncode == 1
    assert findings(run)["clash"][0]["level"] == "ok"


def test_a_supervisor_package_that_is_not_ours(run: Run, tmp_path: Path) -> None:
    (tmp_path / "site" / "supervisor").mkdir(parents=True)
    (tmp_path / "site" / "supervisor" / "__init__.py").touch()
    env = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"}
    assert findings(run, env=env)["clash"][0]["level"] == "trouble"


def test_training_libraries_are_looked_for_and_not_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").write_text("raise SystemExit('imported')")
    env = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"}
    assert findings(run, env=env)["training"][0]["level"] == "ok"


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 40, 1), "note"), ((3, 51, 2), "note"), ((3, 51, 3), "ok"), ((3, 53, 0), "ok"), ((3, 50, 6), "note"),
        ((3, 50, 7), "ok"), ((3, 51, 0), "note"), ((3, 44, 5), "note"), ((3, 44, 6), "ok"), ((3, 45, 0), "note"),
        ((3, 6, 9), "ok"),
    ],
)  # fmt: skip
def test_sqlite_versions_with_the_race(version: tuple[int, int, int], level: str) -> None:
    assert sqlite.judge(version).level == level


MOUNTS = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:30 / /mnt/with\\040space rw - nfs4 server:/x rw
31 22 0:31 / /mnt/fuse rw - fuse.sshfs host:/ rw
32 31 254:1 / /mnt/fuse/disk rw - xfs /dev/vdb rw
33 22 0:33 / /tmp rw - tmpfs none rw
34 22 0:34 / /over rw - ext4 /dev/vdc rw
35 34 0:35 / /over rw - cifs //server/x rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "level"),
    [
        ("/home/x", "ext4", "ok"), ("/mnt/with space/home", "nfs4", "warning"),
        ("/mnt/fuse/h", "fuse.sshfs", "warning"),
        ("/mnt/fuse/disk/h", "xfs", "ok"), ("/mnt/fuses", "ext4", "ok"), ("/tmp/h", "tmpfs", "warning"),
        ("/over/h", "cifs", "warning"),
    ],
)  # fmt: skip
def test_file_systems(folder: str, kind: str, level: str) -> None:
    assert filesystem.kind_of(Path(folder), MOUNTS)[0] == kind
    assert filesystem.judge(Path(folder), MOUNTS).level == level


def test_disk_floors() -> None:
    assert [disk.judge(free, 10, 50).level for free in (9, 10, 49, 50)] == ["trouble", "warning", "warning", "ok"]


def test_disk_floors_are_the_running_daemons(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    home.settings.write_text('[disk]\nrefuse_below = "900TB"\nwarn_below = "901TB"\n')
    assert disk.check(home)[0].level == "ok"


def test_a_socket_open_to_others(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    assert [finding.level for finding in permissions.check(home)] == ["ok"]
    home.socket.chmod(0o666)
    home.run.chmod(0o755)
    found = permissions.check(home)
    assert [finding.level for finding in found] == ["trouble", "trouble"]
    assert found[1].remedy == f"chmod 600 {home.socket}"


def test_a_folder_that_is_missing(home: Home) -> None:
    home.failed.rmdir()
    assert [finding.level for finding in permissions.check(home)] == ["note"]


def test_inotify_limits() -> None:
    assert inotify.judge(128, 8192, 3).level == "ok"
    assert inotify.judge(128, 8192, 128).level == "warning"
    assert inotify.judge(128, 10, 3).level == "warning"


def test_the_tag_is_the_one_that_the_supervisor_writes() -> None:
    assert f"{custody.TAG}=".encode() == orphans.TAG


def test_a_process_whose_owner_is_dead_is_an_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name of the tag, lest a daemon that starts meanwhile ends them: it looks for them too."""
    monkeypatch.setattr(orphans, "TAG", b"CUSTODY_OF_A_TEST=")
    monkeypatch.setattr(orphans, "ENDED_WITHIN", 0.0)
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = custody.new_tag()
    namespace, me, _, rest = mine.split(".")
    tags = {
        "orphan": f"{namespace}.{ended.pid}.1.{rest}",
        "no numbers": f"{namespace}.x.y.{rest}",
        "undecodable": f"\udcff.1.1.{rest}",
        "kept": mine,
        "recycled": f"{namespace}.{me}.1.{rest}",
        "elsewhere": f"1.{ended.pid}.1.{rest}",
        "nonsense": "x",
    }
    sleepers = {
        name: subprocess.Popen(
            [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment({"CUSTODY_OF_A_TEST": tag}),
        )
        for name, tag in tags.items()
    }  # fmt: skip
    try:
        for sleeper in sleepers.values():
            assert sleeper.stdout is not None
            sleeper.stdout.readline()
        found = orphans.check()
    finally:
        for sleeper in sleepers.values():
            sleeper.communicate()
    pids = {row.what.split()[1] for row in found}
    assert {name for name, sleeper in sleepers.items() if str(sleeper.pid) in pids} == {"orphan", "recycled"}
    assert f"kill -9 {sleepers['orphan'].pid}" in {row.remedy for row in found}
    assert [row.level for row in orphans.check()] == ["ok"]


def test_head_and_current_agree(home: Home) -> None:
    assert [finding.level for finding in head.check(home)] == ["ok"]
    name = homes.checkpoint(home, 10)
    homes.version(home, 1, "base")
    homes.version(home, 2, "trained")
    homes.head(home, name, 2)
    assert [finding.level for finding in head.check(home)] == ["ok"]


def test_checkpoints_without_a_head(home: Home) -> None:
    homes.checkpoint(home, 10)
    (finding,) = head.check(home)
    assert finding.level == "trouble"
    assert "stokehold checkpoints verify" in finding.remedy


@pytest.mark.parametrize(
    ("harm", "level", "said"),
    [
        ("rm {home}/models/current", "warning", "missing"),
        ("ln -sfn versions/000001 {home}/models/current", "warning", "versions/000001"),
        ("rm {home}/models/current && mkdir {home}/models/current", "trouble", "no symlink"),
        ("rm -r {home}/models/versions/000002", "trouble", "000002"),
        ("truncate -s 5 {home}/models/versions/000002/model.safetensors", "trouble", "model.safetensors"),
        ("truncate -s 5 {home}/models/versions/000002/manifest.json", "trouble", "manifest.json"),
        ("rm {home}/checkpoints/*/ledger.json", "trouble", "ledger.json"),
        ("rm -r {home}/checkpoints/*", "trouble", "step-00000010"),
        ("truncate -s 9 {home}/HEAD", "trouble", "HEAD"),
        ("echo '{{\"format\": 9}}' > {home}/HEAD", "trouble", "newer stokehold"),
    ],
)
def test_head_and_current_disagree(home: Home, harm: str, level: str, said: str) -> None:
    name = homes.checkpoint(home, 10)
    homes.version(home, 1, "base")
    homes.version(home, 2, "trained")
    homes.head(home, name, 2)
    subprocess.run(harm.format(home=home.root), shell=True, check=True)
    found = head.check(home)
    assert level in {finding.level for finding in found}
    assert said in " ".join(finding.what for finding in found)
