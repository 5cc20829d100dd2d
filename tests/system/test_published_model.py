"""P4: the published model loads in a process that knows nothing of stokehold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import MakeDaemon
from tests.system.harness import rows

STRANGER = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer("The stoker feeds", return_tensors="pt").input_ids
out = model.generate(ids, max_new_tokens=4, do_sample=False)
chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
print(json.dumps({"new": out.shape[1] - ids.shape[1], "text": tokenizer.decode(out[0]), "chat": chat,
                  "ours": [m for m in sys.modules if m.split(".")[0] in ("actors", "supervisor", "protocol", "peft")],
                  "parameters": sum(p.numel() for p in model.parameters())}))
"""


@pytest.mark.parametrize("settings", [{}, {"training": {"method": "lora", "lora_rank": 4}}], ids=["full", "lora"])
def test_a_stranger_loads_it(make_daemon: MakeDaemon, tmp_path: Path, settings: dict[str, Any]) -> None:
    it = make_daemon(settings=settings).start()
    it.drop("a.jsonl", rows(20))
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    it.wait_idle()
    base, current = it.home.version(1), it.home.current.resolve()
    listed = it.json("models", "list")
    assert it.stop() == 0
    assert [(row["kind"], row["current"]) for row in listed] == [("trained", True), ("base", False)]
    assert listed[0]["weights_sha256"] != listed[1]["weights_sha256"]
    said = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(current)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    answer = json.loads(said.stdout.splitlines()[-1])
    assert 1 <= answer["new"] <= 4
    assert answer["ours"] == []
    assert answer["parameters"] > 100_000
    assert "hi" in answer["chat"]
    assert base.is_dir()
