"""A version appears whole, under the next number, and its weights have one name whatever the files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.testing.floats import FloatCodec
from actors.trainer.publish import clean_versions, publish_version, verify_version, version_problem, versions
from actors.trainer.retention import retain_versions
from actors.trainer.tensorfile import BadTensorFile, pieces, weights_sha256
from actors.trainer.torch_tensors import TorchCodec
from protocol.records import BaseModel, Head, Ledger, VersionManifest, read_record
from supervisor.durable import Disk
from tests.actors.trainer.disks import broken_disk, full_disk
from tests.actors.trainer.scene import BASE, LINEAGE, Scene, make_home


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(make_home(tmp_path / "home"), Disk())


def test_versions_are_numbered_and_vouched_for(scene: Scene) -> None:
    made = [scene.publish(step, checkpoint=f"step-{step:08d}-00000000") for step in (10, 20)]
    assert [one.version for one in made] == [1, 2]
    assert versions(scene.home) == made[::-1]
    assert sorted(made[0].files) == ["config.json", "extra/template.jinja", "model.safetensors"]
    read = read_record(scene.home.version(1) / "manifest.json", VersionManifest)
    assert read == made[0]
    assert read.weights_sha256 == weights_sha256(scene.home.version(1)) != made[1].weights_sha256
    assert verify_version(scene.home, 1) is None


def test_a_base_is_its_own_base(scene: Scene) -> None:
    made = scene.publish(0, kind="base", base=BaseModel("tiny", "", "lora"))
    assert made.base == BaseModel("tiny", made.weights_sha256, "lora")


def test_a_number_that_head_names_is_not_given_again(scene: Scene) -> None:
    head = Head(LINEAGE, None, 7, scene.publish(10).created_at)
    scene.head.replace(head)
    assert scene.publish(20).version == 8


@pytest.mark.parametrize("make", [full_disk, broken_disk])
def test_a_failed_publication_leaves_nothing(scene: Scene, make: Callable[[int], Disk]) -> None:
    scene.publish(10)
    steps = 0
    while True:
        steps += 1
        try:
            Scene(scene.home, make(steps)).publish(20)
        except OSError:
            assert [path.name for path in scene.home.versions.iterdir()] == ["000001"]
        else:
            break
    assert steps >= 6
    assert verify_version(scene.home, 2) is None


def nonsense(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x")


def test_an_error_of_the_writer_leaves_nothing(scene: Scene) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.safetensors").write_bytes(b"x")
        raise RuntimeError("the model does not save")

    with pytest.raises(RuntimeError, match="does not save"):
        publish(scene, fail)
    with pytest.raises(FileNotFoundError, match="no safetensors file"):
        publish(scene, lambda folder: None)
    with pytest.raises(BadTensorFile):
        publish(scene, nonsense)
    assert list(scene.home.versions.iterdir()) == []


def publish(scene: Scene, save: Callable[[Path], None]) -> None:
    publish_version(
        scene.home, scene.disk, kind="trained", step=1, lineage=LINEAGE, checkpoint=None, base=BASE, ledger=Ledger(),
        identity={}, save=save,
    )  # fmt: skip


def test_damage_is_told_by_size_or_by_every_byte(scene: Scene) -> None:
    scene.publish(10)
    path = scene.home.version(1) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert version_problem(scene.home, 1) is None
    assert "model.safetensors" in (verify_version(scene.home, 1) or "")
    (scene.home.version(1) / "extra" / "template.jinja").unlink()
    assert version_problem(scene.home, 1) == "extra/template.jinja missing"
    assert version_problem(scene.home, 2) is not None
    assert versions(scene.home) == []


def test_clean_removes_half_made_ones(scene: Scene) -> None:
    scene.publish(10)
    (scene.home.versions / ".tmp-000002").mkdir()
    assert clean_versions(scene.home, scene.disk) == [".tmp-000002"]
    assert version_problem(scene.home, 1) is None


def test_retention_keeps_the_base_heads_and_the_newest(scene: Scene) -> None:
    scene.publish(0, kind="base")
    for step in range(10, 80, 10):
        last = scene.publish(step)
    scene.head.replace(Head(LINEAGE, None, last.version, last.created_at))
    assert retain_versions(scene.home, scene.disk, keep=2) == [5, 4, 3, 2]
    assert [one.version for one in versions(scene.home)] == [8, 7, 6, 1]
    assert retain_versions(scene.home, scene.disk, keep=2) == []


def test_retention_keeps_what_a_checkpoint_stands_on(scene: Scene) -> None:
    first = scene.publish(10)
    for step in (20, 30, 40):
        last = scene.publish(step)
    scene.head.replace(Head(LINEAGE, None, last.version, last.created_at))
    base = msgspec.structs.replace(BASE, weights_sha256=first.weights_sha256)
    scene.store.save(
        step=1, tokens=1, lineage=LINEAGE, parent=None, base=base, tensors={}, state={}, ledger=Ledger(), identity={}
    )
    assert retain_versions(scene.home, scene.disk, keep=1) == [2]


def test_without_head_retention_removes_nothing(scene: Scene) -> None:
    for step in (10, 20, 30):
        scene.publish(step)
    assert retain_versions(scene.home, scene.disk, keep=1) == []


# ---------------------------------------------------------------- the file format, against the reference library


def examples() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    return {
        "matrix": torch.randn(3, 5),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "empty": torch.empty(0, 3),
        "half": torch.randn(5).to(torch.bfloat16),
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "double": torch.randn(2, dtype=torch.float64),
        "transposed": base.t(),
        "slice": base[1:3],
        "needs grad": torch.nn.Parameter(torch.randn(2, 2)),
    }


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    codec = TorchCodec()
    tensors = examples()
    data = pieces({name: codec.raw(tensor) for name, tensor in tensors.items()})
    (tmp_path / "model.safetensors").write_bytes(b"".join(data))
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_we_read_what_we_write_at_a_fresh_alignment(scene: Scene) -> None:
    from actors.trainer.checkpoint import CheckpointStore

    store = CheckpointStore(scene.home, scene.disk, TorchCodec())
    tensors = examples()
    manifest = store.save(
        step=1, tokens=1, lineage=LINEAGE, parent=None, base=BASE, tensors={"model": tensors}, state={},
        ledger=Ledger(), identity={},
    )  # fmt: skip
    loaded = store.load(manifest.name).tensors["model"]
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
        assert loaded[name].data_ptr() % 64 == 0 or not loaded[name].numel()
        assert loaded[name].is_contiguous()


def test_the_digest_names_the_weights_and_not_their_files(tmp_path: Path) -> None:
    tensors = {name: tensor.detach().clone() for name, tensor in examples().items()}
    one, two, ours = (tmp_path / name for name in ("one", "two", "ours"))
    for folder in (one, two, ours):
        folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, one / "model.safetensors")
    for number, name in enumerate(tensors):
        save_file({name: tensors[name].contiguous()}, two / f"model-{number}.safetensors", metadata={"format": "pt"})
    codec = TorchCodec()
    data = pieces({name: codec.raw(tensor) for name, tensor in tensors.items()})
    (ours / "weights.safetensors").write_bytes(b"".join(data))
    assert weights_sha256(one) == weights_sha256(two) == weights_sha256(ours)


def test_the_digest_tells_names_shapes_dtypes_and_bytes_apart(tmp_path: Path) -> None:
    variants = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.tensor([0.0, 0.0, 0.0, -0.0])},
        {"a": torch.zeros(4), "b": torch.zeros(0)},
    ]
    digests = set()
    for number, tensors in enumerate(variants):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        digests.add(weights_sha256(folder))
    assert len(digests) == len(variants)


def test_the_same_name_twice_has_no_digest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(BadTensorFile, match=r"'x' is in a\.safetensors and in b\.safetensors"):
        weights_sha256(tmp_path)


def test_doubles_without_torch_are_the_same_file(tmp_path: Path) -> None:
    raw = FloatCodec().raw(array("d", [1.0, -2.5, 1e300]))
    (tmp_path / "model.safetensors").write_bytes(b"".join(pieces({"x": raw})))
    assert load_file(tmp_path / "model.safetensors")["x"].tolist() == [1.0, -2.5, 1e300]
    with pytest.raises(ValueError, match="not an array of doubles"):
        FloatCodec().empty("F32", (3,))


def test_numbers_have_room(scene: Scene) -> None:
    os.rename(scene.home.version(scene.publish(1).version), scene.home.version(999_998))
    assert scene.publish(2).version == 999_999
