"""What training needs and the daemon itself does not: looked for, never imported."""

from __future__ import annotations

from importlib.util import find_spec

from protocol.cli.doctor.finding import Finding

NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "peft", "numpy")


def check() -> list[Finding]:
    """Are the libraries of the training process installed?"""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        what = f"training processes cannot start: {', '.join(missing)} not installed"
        return [Finding("trouble", what, "pip install 'stokehold[train]'")]
    return [Finding("ok", f"{', '.join(NEEDED)} are installed")]
