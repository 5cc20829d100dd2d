"""P4: the published model loads in a process that knows nothing of stokehold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from protocol.home import Home
from tests.system.harness import CLI
from tests.system.killing import METHODS, Controls

STRANGER = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The stoker feeds", return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=4, do_sample=False)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    ours = [m for m in sys.modules if m.split(".")[0] in ("actors", "supervisor", "protocol", "peft")]
    print(json.dumps({"new": out.shape[1] - ids.shape[1], "text": tokenizer.decode(out[0]), "chat": chat, "ours": ours,
                      "parameters": sum(p.numel() for p in model.parameters())}))
"""


def test_a_stranger_loads_it(undisturbed: Controls, tmp_path: Path) -> None:
    homes = [Home(undisturbed.home(method)) for method in METHODS]
    current = [str(home.current.resolve()) for home in homes]
    command = [sys.executable, "-I", "-c", STRANGER, *current]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for line in said.stdout.splitlines()[-2:]:
        answer = json.loads(line)
        assert 1 <= answer["new"] <= 4
        assert answer["text"].startswith("The stoker feeds")
        assert answer["ours"] == []
        assert answer["parameters"] > 100_000
        assert "hi" in answer["chat"]


def test_what_is_published_is_listed_and_is_not_the_base(undisturbed: Controls) -> None:
    for method in METHODS:
        command = [*CLI, "models", "list", "--json", "--home", str(undisturbed.home(method))]
        listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert [(row["kind"], row["current"]) for row in listed] == [("trained", True), ("base", False)]
        assert listed[0]["weights_sha256"] == undisturbed[method][0]
        assert listed[0]["weights_sha256"] != listed[1]["weights_sha256"]
