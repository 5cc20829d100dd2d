"""A home, and the book of its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.queue.book import Book
from protocol.home import Home
from tests.actors.queue.homes import first_book, make_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture
def book(home: Home) -> Book:
    return first_book(home)
