"""One really small model for all tests of training: a folder, as a user would have it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with a model of 40 thousand parameters, its tokenizer, and a template with generation markers."""
    from actors.trainer.tiny import Shape, tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("small")
    tokenizer = tiny_tokenizer(512)
    tiny_model(tokenizer, 0, Shape(vocabulary=512, width=32, inner=64, layers=2, heads=2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Like ``small``, with one matrix for both embeddings."""
    from actors.trainer.tiny import Shape, tiny_model, tiny_tokenizer

    folder: Path = tmp_path_factory.mktemp("tied")
    tokenizer = tiny_tokenizer(512)
    shape = Shape(vocabulary=512, width=32, inner=64, layers=2, heads=2, tied=True)
    tiny_model(tokenizer, 0, shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
