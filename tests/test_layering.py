"""`actors` may import `supervisor` and `protocol`; `supervisor` may import `protocol`; `protocol` imports neither.

Only process hosts and training processes import torch.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"protocol": {"supervisor", "actors"}, "supervisor": {"actors"}, "actors": set()}
HEAVY = {"torch", "transformers", "peft", "tokenizers", "safetensors", "numpy"}
MAY_BE_HEAVY = ("actors/trainer/", "actors/tools/")
SUPERVISORD_NAMES = {
    "childutils", "compat", "confecho", "datatypes", "dispatchers", "events", "http", "http_client", "loggers",
    "options", "pidproxy", "poller", "process", "rpcinterface", "socket_manager", "states", "supervisorctl",
    "supervisord", "templating", "version", "web", "xmlrpc",
}  # fmt: skip


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no modules in {package}: this test would prove nothing"
    return found


def imports(path: Path) -> set[str]:
    """Top-level names of all modules that the file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_layers(package: str) -> None:
    for path in modules(package):
        wrong = imports(path) & FORBIDDEN[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_only_training_code_imports_torch(package: str) -> None:
    for path in modules(package):
        if not path.relative_to(ROOT).as_posix().startswith(MAY_BE_HEAVY):
            wrong = imports(path) & HEAVY
            assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_no_module_bears_a_name_of_supervisord() -> None:
    ours = {path.stem for path in (ROOT / "supervisor").glob("*.py")} | {
        path.name for path in (ROOT / "supervisor").iterdir() if path.is_dir()
    }
    assert not ours & SUPERVISORD_NAMES
