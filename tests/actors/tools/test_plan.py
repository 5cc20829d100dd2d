"""Plan counts what the trainer really takes, and finds settings that fit where those asked for do not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from transformers import GPT2Config

from actors.inbox.rows import TextRow
from actors.tools import plan, speed, verdict
from actors.tools.opening import Opened, Refused, as_trained, open_tokenizer
from actors.tools.shape import ShapedModel
from actors.tools.survey import Reader
from actors.trainer.checkpoint import CheckpointStore
from actors.trainer.data import count_steps
from actors.trainer.engine import Encoded
from actors.trainer.loss import collate
from actors.trainer.masks import Encoder
from actors.trainer.model import Source, load_source
from actors.trainer.publish import publish_version
from actors.trainer.tiny import Shape, tiny_model, tiny_tokenizer
from actors.trainer.torch_learner import TorchLearner
from actors.trainer.torch_tensors import TorchCodec
from protocol.config import Config, DiskSection, ModelSection, TrainingSection
from protocol.home import Home
from protocol.records import BaseModel, Ledger
from supervisor.durable import Disk, Space

ROWS = [json.dumps({"prompt": f"Question {n}?", "completion": f" Answer {n}, and then some more."}) for n in range(60)]
TINY = Config(training=TrainingSection(threads=1, batch_tokens=128, micro_batch_tokens=128, max_length=64))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(ROWS))
    (tmp_path / "stokehold.toml").write_text(
        "[disk]\nrefuse_below = 1\nwarn_below = 1\n"
        "[training]\nepochs = 2\nthreads = 1\nbatch_tokens = 128\nmax_length = 64\n"
    )
    return path


def with_training(**changes: Any) -> Config:
    return msgspec.structs.replace(TINY, training=msgspec.structs.replace(TINY.training, **changes))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_shape_is_that_of_the_real_model(tmp_path: Path, tokenizer: Any, method: str) -> None:
    config = with_training(method=method)
    sizes = ShapedModel(config, tokenizer).sizes
    learner = TorchLearner(load_source(config.model, 0), config)
    assert sizes.parameters == sum(one.numel() for one in learner.model.parameters())
    assert sizes.trained == sum(one.numel() for one in learner.parameters.values())
    row = Encoded([1, 2, 3, 4], [True] * 4)
    learner.step([row], 0, config.training, lambda: None)
    home = Home(tmp_path)
    for folder in home.folders:
        folder.mkdir(exist_ok=True)
    tensors, state = learner.capture()
    base = BaseModel("tiny", "", "full")
    common: dict[str, Any] = {"step": 1, "lineage": "x", "base": base, "ledger": Ledger(), "identity": {}}
    CheckpointStore(home, Disk(), TorchCodec()).save(tokens=1, parent=None, tensors=tensors, state=state, **common)
    cost = CheckpointStore(home, Disk(), TorchCodec()).entries()[0].bytes
    assert cost <= sizes.checkpoint_bytes < cost + (1 << 20) + cost // 10
    publish_version(home, Disk(), kind="base", checkpoint=None, save=learner.save_version, **common)
    written = sum(path.stat().st_size for path in home.version(1).iterdir())
    assert written <= sizes.version_bytes < written + (16 << 20)


def test_activations_are_those_that_autograd_keeps(tokenizer: Any) -> None:
    config = with_training(max_length=64, micro_batch_tokens=256)
    predicted = ShapedModel(config, tokenizer).memory(config.training).activations
    model = TorchLearner(load_source(config.model, 0), config).model
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    ids, mask, _ = collate([Encoded([1] * 64, [True] * 64)] * 4)
    mask[0, -1] = 0
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(input_ids=ids, attention_mask=mask, use_cache=False)
    weights = {one.untyped_storage().data_ptr() for one in [*model.parameters(), *model.buffers()]}
    real = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)
    assert output.logits.shape[0] == 4
    assert predicted == pytest.approx(real, rel=0.1)


def test_memory_grows_with_length_and_shrinks_with_lora(tokenizer: Any) -> None:
    full = ShapedModel(TINY, tokenizer)
    short = full.memory(TINY.training)
    long = full.memory(with_training(max_length=512, micro_batch_tokens=512).training)
    assert long.activations > 3 * short.activations
    assert (long.weights, long.optimizer) == (short.weights, short.optimizer)
    assert full.memory(with_training(max_length=512, micro_batch_tokens=128).training, longest=64) == short
    lora = ShapedModel(with_training(method="lora"), tokenizer).memory(TINY.training)
    assert lora.optimizer < short.optimizer / 5


def test_where_it_does_not_fit_the_mildest_change_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_training(max_length=1024, micro_batch_tokens=4096)
    need = ShapedModel(config, tokenizer).memory(config.training).total
    one_row = (
        ShapedModel(config, tokenizer).memory(with_training(max_length=1024, micro_batch_tokens=1024).training).total
    )
    monkeypatch.setattr(verdict, "device_memory", lambda device: int((one_row + 1) / verdict.HEADROOM) + 1)
    assert one_row < need
    found = verdict.suggest(config, tokenizer, None)
    assert found is not None and found.settings == {"training.micro_batch_tokens": 1024}
    assert found.memory_bytes == one_row
    monkeypatch.setattr(verdict, "device_memory", lambda device: 1 << 20)
    assert verdict.suggest(config, tokenizer, None) is None


def test_disk_counts_what_is_kept_what_is_there_and_what_must_stay(tmp_path: Path, tokenizer: Any) -> None:
    class SmallDisk(Disk):
        def free(self, path: Path) -> Space:
            return Space(free, free, 10**6)

    config = msgspec.structs.replace(TINY, disk=DiskSection(refuse_below=100 << 20, warn_below=100 << 20))
    model, home = ShapedModel(config, tokenizer), Home(tmp_path / "not" / "yet")
    free = 1 << 40
    roomy = verdict.judge_disk(model, config, home, SmallDisk())
    assert roomy.fits
    assert roomy.held_back_bytes == 100 << 20
    assert roomy.to_come_bytes == 4 * roomy.checkpoint_bytes + 8 * roomy.version_bytes
    free = roomy.to_come_bytes + roomy.held_back_bytes
    assert verdict.judge_disk(model, config, home, SmallDisk()).fits
    free -= 1
    assert not verdict.judge_disk(model, config, home, SmallDisk()).fits
    home.checkpoints.mkdir(parents=True)
    (home.checkpoints / "old").write_bytes(b"x" * 1000)
    assert verdict.judge_disk(model, config, home, SmallDisk()).to_come_bytes == roomy.to_come_bytes - 1000


def test_a_file_is_planned(file: Path, capsys: pytest.CaptureFixture[str], tokenizer: Any) -> None:
    assert plan.main([str(file), "--home", str(file.parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    encoder = Encoder(tokenizer, 64)
    survey, samples = Reader(with_training(max_length=64), tokenizer).read(file, 5)
    assert len(samples) == 5 and encoder.encode(samples[0].row) == samples[0].encoded
    assert told["fits"] is True
    assert told["file"]["rows"] == 60 and told["file"]["epochs"] == 2 and told["file"]["whole"] is True
    assert told["file"]["tokens"] == survey.tokens
    assert 0 < told["file"]["trained_tokens"] < told["file"]["tokens"]
    assert told["file"]["steps"] >= 2 * told["file"]["tokens"] / 128
    assert told["speed"]["measured"] is True and told["speed"]["tokens_per_s"] > 0
    assert told["file"]["seconds"] == pytest.approx(2 * survey.tokens / told["speed"]["tokens_per_s"])
    assert told["suggestion"] is None
    assert {entry.name for entry in os.scandir(file.parent)} == {"rows.jsonl", "stokehold.toml"}, "nothing is written"


def test_a_plan_without_a_file_for_people(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--home", str(file.parent)]) == 0
    out = capsys.readouterr().out
    assert "tiny, full: 2,557,632 parameters" in out
    assert "  fits" in out and "does not fit" not in out and "\nfile " not in out


def test_a_plan_that_does_not_fit_exits_1_and_says_what_would(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "device_memory", lambda device: 1000 << 20)
    assert plan.main([str(file), "--home", str(file.parent), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] is False and told["memory"]["fits"] is False
    assert told["speed"]["measured"] is False and "estimate" in told["speed"]["how"]
    assert told["suggestion"]["settings"]
    assert plan.main(["--home", str(file.parent)]) == 1
    out = capsys.readouterr().out
    assert "does not fit" in out and "\nfits with training." in out


def test_a_large_file_is_read_in_part(file: Path, tokenizer: Any) -> None:
    file.write_text("\n".join(ROWS * 50))
    survey, _ = Reader(TINY, tokenizer).read(file, 0, seconds=0.0)
    assert 0 < survey.share < 0.5
    assert survey.scaled(survey.rows) == pytest.approx(3000, rel=0.5)


def test_steps_are_counted_as_the_trainer_counts_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("\n".join(json.dumps({"text": "word " * (22 + n % 3)}) for n in range(30)))
    assert plan.main([str(file), "--home", str(file.parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["file"]
    encoder = Encoder(tiny_tokenizer(), 64)
    lengths = [len(encoder.encode(TextRow("word " * (22 + n % 3))).ids) for n in range(30)]
    assert told["steps"] == 2 * count_steps(range(30), 0, lengths, 128) > 2 * -(-told["tokens"] // 128)


@pytest.mark.parametrize(("rows", "why"), [([*ROWS, "nonsense"], "one bad line"), ([], "no row"), (["{}"], "no row")])
def test_a_file_that_would_be_refused_is_said_to_be(
    file: Path, capsys: pytest.CaptureFixture[str], rows: list[str], why: str
) -> None:
    file.write_text("\n".join(rows))
    assert plan.main([str(file), "--home", str(file.parent)]) == 1
    out = capsys.readouterr().out
    assert f"it would go to queue/failed/ at once: {why}" in out
    assert "\ntime " not in out


def test_the_copies_of_a_version_count_where_they_are_the_highest_point(tokenizer: Any) -> None:
    config = with_training(method="lora", max_length=16, micro_batch_tokens=16)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, dtype="bfloat16"))
    model = ShapedModel(config, tokenizer)
    need = model.memory(config.training)
    assert need.version == 2 * 2_557_632, "at night the merged model stands beside the old one"
    assert need.total == need.weights + need.optimizer + need.program + max(need.stepping, need.version)
    assert ShapedModel(TINY, tokenizer).memory(TINY.training).version == 0, "float32 is written from where it lies"


def test_speed_is_measured_on_full_steps(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    step = TorchLearner.step

    def counted(self: TorchLearner, rows: Any, *more: Any) -> Any:
        seen.append(sum(len(row.ids) for row in rows))
        return step(self, rows, *more)

    monkeypatch.setattr(TorchLearner, "step", counted)
    found = speed.speed_of(TINY, tokenizer, ShapedModel(TINY, tokenizer).sizes, [Encoded([1, 2], [True] * 2)], True)
    assert found.measured and seen == [128] * speed.STEPS


def test_rows_are_no_longer_than_the_model_has_positions(tmp_path: Path) -> None:
    GPT2Config(n_positions=16).save_pretrained(tmp_path / "model")
    config = with_training(max_length=64)
    home = Home(tmp_path)
    of_folder = msgspec.structs.replace(config, model=ModelSection(source=str(tmp_path / "model")))
    assert as_trained(Opened(of_folder, home)).config.training.max_length == 16
    assert as_trained(Opened(config, home)).config.training.max_length == 64
    longest = with_training(max_length=1 << 20)
    assert as_trained(Opened(longest, home)).config.training.max_length == 4096


def test_the_tokenizer_is_the_homes_own_once_it_has_a_model(tmp_path: Path, tokenizer: Any) -> None:
    home = Home(tmp_path)
    for folder in home.folders:
        folder.mkdir(exist_ok=True)
    config = with_training(method="full")
    assert len(open_tokenizer(Opened(config, home))) == 2048
    own = tiny_tokenizer(512)
    small = TorchLearner(
        Source(tiny_model(own, 0, Shape(vocabulary=512, width=32, inner=64, layers=2, heads=2)), own), config
    )
    base = BaseModel("tiny", "", "full")
    made = publish_version(
        home, Disk(), kind="base", step=0, lineage="x", checkpoint=None, base=base, ledger=Ledger(), identity={},
        save=small.save_version,
    )  # fmt: skip
    home.current.symlink_to(f"versions/{made.version:06d}")
    assert len(open_tokenizer(Opened(config, home))) == 512
    other = msgspec.structs.replace(config, model=ModelSection(source=str(tmp_path)))
    with pytest.raises(Refused, match=r"model\.source"):
        open_tokenizer(Opened(other, home))
