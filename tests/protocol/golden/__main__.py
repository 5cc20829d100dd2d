"""``python -m tests.protocol.golden --add``: write a golden line for every example that has none."""

from __future__ import annotations

import sys

from tests.protocol.golden.lines import add

if sys.argv[1:] != ["--add"]:
    sys.exit("usage: python -m tests.protocol.golden --add")
print("\n".join(add()) or "every example has its line")
