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
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder), sum(len(keys) for keys in info.values())
def loss(model, tokenizer):
    ids = tokenizer("Row 4: the stoker feeds boiler 4 with 47 shovels of coal.", return_tensors="pt").input_ids
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()
for folder, base in zip(sys.argv[1::2], sys.argv[2::2]):
    model, tokenizer, misfits = load(folder)
    ids = tokenizer("The stoker feeds", return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=4, do_sample=False)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    ours = [m for m in sys.modules if m.split(".")[0] in ("actors", "supervisor", "protocol", "peft")]
    losses = {"loss": loss(model, tokenizer), "base_loss": loss(*load(base)[:2])}
    print(json.dumps({**losses, "misfits": misfits, "new": out.shape[1] - ids.shape[1], "chat": chat, "ours": ours,
                      "text": tokenizer.decode(out[0]), "parameters": sum(p.numel() for p in model.parameters())}))
"""


def test_a_stranger_loads_it(undisturbed: Controls, tmp_path: Path) -> None:
    homes = [Home(undisturbed.home(method)) for method in METHODS]
    folders = [str(folder) for home in homes for folder in (home.current.resolve(), home.version(1))]
    command = [sys.executable, "-I", "-c", STRANGER, *folders]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in said.stdout.splitlines()[-2:]]
    assert len(answers) == len(METHODS)
    for method, answer in zip(METHODS, answers, strict=True):
        assert answer["misfits"] == 0, "weights that are missing, superfluous or of another shape"
        assert answer["loss"] < answer["base_loss"] - (1.0 if method == "full" else 0.01), "it has learned nothing"
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
