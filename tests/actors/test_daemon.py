"""The tree of the daemon: who is in it, by which policy, and with which settings it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.daemon import Parts, daemon_tree, read_settings
from actors.metrics import ACTORS
from actors.settings_store import ConfigStore
from protocol.config import CHILDREN, ChildSection, Config
from protocol.home import Home
from protocol.messages.public import PUBLIC
from protocol.settings import ConfigError
from supervisor import ChildSpec, CoolDown, SupervisorSpec


def spec_of(**policies: ChildSection) -> SupervisorSpec:
    return daemon_tree(Parts(Home(Path("/nowhere")), ConfigStore(Config(supervision=policies))))


def everyone(spec: SupervisorSpec | ChildSpec) -> Iterator[SupervisorSpec | ChildSpec]:
    yield spec
    for child in spec.children if isinstance(spec, SupervisorSpec) else ():
        yield from everyone(child)


def test_the_names_are_the_same_wherever_they_stand() -> None:
    names = [each.id for each in everyone(spec_of())]
    assert names == list(CHILDREN), "in start order"
    assert [each.id for each in everyone(spec_of()) if isinstance(each, ChildSpec)] == list(ACTORS)
    assert set(PUBLIC) <= set(ACTORS)


def test_every_key_of_a_policy_has_an_effect() -> None:
    given = {"intensity": 7, "period": 8.0, "shutdown": 9.0, "liveness": 10.0, "cool_down": 11.0}
    policies = {name: ChildSection(**{key: given[key] for key in keys}) for name, keys in CHILDREN.items()}
    for each in everyone(spec_of(**policies)):
        found = {key: getattr(each, key) for key in CHILDREN[each.id] if key != "cool_down"}
        assert found == {key: given[key] for key in found}
        if "cool_down" in CHILDREN[each.id]:
            assert each.on_give_up == CoolDown(11.0)


def test_without_a_policy_nobody_below_the_root_escalates() -> None:
    root = spec_of()
    assert not isinstance(root.on_give_up, CoolDown), "who is refused the lock must end"
    assert all(isinstance(each.on_give_up, CoolDown) for each in root.children if isinstance(each, SupervisorSpec))


# ---------------------------------------------------------------- the binary's way in


def test_what_the_command_line_says_is_shown_and_outlives_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[daemon]\nhome = "x"\nbackend = "asyncio"\n')
    loaded, overrides = read_settings(file, tmp_path / "h", "trio")
    assert loaded.home == tmp_path / "h"
    store = ConfigStore(loaded.config, loaded.path, overrides, loaded.origins)
    shown = store.shown()
    assert shown.written["daemon.backend"] == '"trio"'
    assert shown.written["daemon.home"] == f'"{tmp_path / "h"}"'
    assert shown.origins["daemon.backend"] == shown.origins["daemon.home"] == "command line"
    file.write_text('[daemon]\nhome = "y"\n[disk]\nevery = "20s"\n')
    assert store.reload().changed == ["disk.every"]
    assert store.current.daemon.backend == "trio"


def test_the_homes_own_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "stokehold.toml").write_text('[disk]\nevery = "20s"\n')
    loaded, _ = read_settings(None, tmp_path, "asyncio")
    assert loaded.config.disk.every == 20
    loaded, overrides = read_settings(tmp_path / "stokehold.toml", None, "asyncio")
    assert (loaded.home, overrides) == (tmp_path, {})


def test_wrong_settings_are_told_with_all_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[disk]\nevry = 1\n[supervision.Trainer]\n")
    with pytest.raises(ConfigError) as refused:
        read_settings(file, tmp_path, "asyncio")
    assert str(refused.value).splitlines() == [
        f"{file}:2: disk.evry: unknown key; did you mean disk.every?",
        f"{file}:3: supervision.Trainer: unknown section; did you mean supervision.TrainerActor?",
    ]
    with pytest.raises(ConfigError, match=r"must be UTF-8, and this one is not: '/h\\udcff'"):
        read_settings(None, Path("/h\udcff"), "asyncio")
    with pytest.raises(ConfigError, match="no home"):
        read_settings(None, None, "asyncio")
