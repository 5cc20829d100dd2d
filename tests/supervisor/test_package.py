"""The package as others meet it: its names, what importing it costs, and the names that it must not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import supervisor

FOREIGN = {
    "compat", "childutils", "confecho", "datatypes", "dispatchers", "events", "http", "loggers", "medusa", "options",
    "pidproxy", "poller", "process", "rpcinterface", "socks", "states", "supervisorctl", "templating", "web", "xmlrpc",
}  # fmt: skip


def test_every_exported_name_is_there_and_listed_once_in_order() -> None:
    assert sorted(supervisor.__all__) == sorted(set(supervisor.__all__))
    for name in supervisor.__all__:
        assert hasattr(supervisor, name)
    public = {
        name
        for name, value in vars(supervisor).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, type(sys))
    }
    assert public == set(supervisor.__all__)


def test_no_module_bears_a_name_of_supervisord() -> None:
    ours = {path.stem for path in Path(supervisor.__file__).parent.iterdir()}
    assert not ours & FOREIGN


def test_importing_it_brings_in_nothing_heavy_and_no_event_loop_that_is_not_used() -> None:
    program = (
        "import sys, supervisor; print([m for m in ('torch', 'transformers', 'numpy', 'trio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
