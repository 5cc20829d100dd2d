"""Reading configuration files: what is right, what is refused and how, where each value came from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.config import Config
from protocol.keys import child_keys, sections
from protocol.settings import ConfigError, Loaded, difference, flat, load, marks, schema
from protocol.toml_lines import key_lines
from protocol.units import CLOCK_EXAMPLE, DURATION_EXAMPLE

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stokehold.toml"


def read(file: Path, text: str, **overrides: object) -> Loaded:
    file.write_text(text, encoding="utf-8")
    return load(file, {key.replace("__", "."): value for key, value in overrides.items()})


def problems(file: Path, text: str, **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(file, text, **overrides)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem).replace(str(file), "F") for problem in caught.value.problems]


def test_no_file_is_the_defaults() -> None:
    loaded = load(None)
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.home == Path.cwd()


def test_an_empty_file_is_the_defaults_and_its_folder_the_home(file: Path) -> None:
    loaded = read(file, "")
    assert loaded.config == Config()
    assert loaded.home == file.parent
    assert read(file, '[daemon]\nhome = "x"').home == file.parent / "x"
    assert read(file, '[daemon]\nhome = "/x"').home == Path("/x")


def test_values_as_people_write_them(file: Path) -> None:
    config = read(
        file,
        """
        [disk]
        refuse_below = "500MB"
        warn_below = 2_000_000_000
        every = "1m30s"
        [consolidation]
        after = "04:30"
        [training]
        learning_rate = 1e-3
        weight_decay = 0
        [supervision.training]
        intensity = 7
        period = "1m"
        """,
    ).config
    assert (config.disk.refuse_below, config.disk.warn_below, config.disk.every) == (500_000_000, 2_000_000_000, 90)
    assert config.consolidation.after == "04:30"
    assert (config.training.learning_rate, config.training.weight_decay) == (1e-3, 0)
    assert (config.supervision["training"].intensity, config.supervision["training"].period) == (7, 60)


def test_each_value_says_where_it_came_from(file: Path) -> None:
    loaded = read(
        file,
        '[disk]\n\nevery = 5\n[supervision.edge]\nperiod = 1\n[http]\nport = 0 # here\nhost = """\n::1"""\n',
        disk__every=6,
        queue__max_attempts=1,
    )
    assert loaded.origins["disk.every"] == "command line"
    assert loaded.origins["queue.max_attempts"] == "command line"
    assert loaded.origins["supervision.edge.period"] == f"{file}:5"
    assert loaded.origins["http.port"] == f"{file}:7"
    assert loaded.origins["http.host"] == f"{file}:8"
    assert loaded.origins["disk.refuse_below"] == "default"
    assert set(loaded.origins) == set(flat(loaded.config))
    assert loaded.config.disk.every == 6


# ---------------------------------------------------------------- refusals


def test_all_problems_are_told_at_once_with_line_key_and_what_would_be_right(file: Path) -> None:
    told = problems(
        file,
        """[disk]
refuse_bellow = 5
every = "soon"
[training]
method = "qlora"
epochs = 0
packing = 1
[consolidation]
after = "3am"
[trainning]
epochs = 1
[checkpoint]
keep = 1
""",
    )
    assert told == [
        "F:2: disk.refuse_bellow: unknown key; did you mean disk.refuse_below?",
        'F:3: disk.every: \'soon\' is not a duration such as "30s", "10m", "1h30m", "7d" or a number of seconds',
        'F:5: training.method: "qlora" is not right; expected "full" or "lora"',
        "F:6: training.epochs: 0 is not right; expected a whole number from 1 to 1000",
        "F:7: training.packing: 1 is not right; expected true or false",
        'F:9: consolidation.after: \'3am\' is not a time of day from "00:00" to "23:59"',
        "F:10: trainning: unknown section; did you mean training?",
        "F:13: checkpoint.keep: 1 is not right; expected a whole number from 2 to 1000",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epochs = 3", "F:1: epochs: unknown section; did you mean training.epochs?"),
        ("[training]\nmax_attempts = 3", "F:2: training.max_attempts: unknown key; did you mean queue.max_attempts?"),
        ("disk = 3", "F:1: disk: must be a section: write [disk] on a line of its own"),
        ("supervision = 3", "F:1: supervision: write a table for each child: [supervision.NAME]"),
        (
            "[supervision]\nedge = 3",
            "F:2: supervision.edge: must be a section: write [supervision.edge] on a line of its own",
        ),
        (
            "[supervision.Trainer]\nshutdown = 3",
            "F:1: supervision.Trainer: unknown section; did you mean supervision.TrainerActor?",
        ),
        (
            "[supervision.TrainerActor]\nintensity = 3",
            "F:2: supervision.TrainerActor.intensity: unknown key; there are: shutdown, liveness, cool_down",
        ),
        (
            "[supervision.root]\ncool_down = 3",
            "F:2: supervision.root.cool_down: unknown key; there are: intensity, period",
        ),
        (
            "[supervision.core]\nintensity = -1",
            "F:2: supervision.core.intensity: -1 is not right; expected a whole number, at least 0",
        ),
        (
            "[supervision.core]\ncool_down = 0",
            f"F:2: supervision.core.cool_down: 0 is not right; expected {DURATION_EXAMPLE}, above 0s",
        ),
        ("[http]\nport = 99999", "F:2: http.port: 99999 is not right; expected a whole number from -1 to 65535"),
        ("[http]\nport = true", "F:2: http.port: true is not right; expected a whole number from -1 to 65535"),
        ('[http]\nport = "1"', 'F:2: http.port: "1" is not right; expected a whole number from -1 to 65535'),
        ('[http]\nhost = " "', 'F:2: http.host: is empty; expected an address to listen on, such as "127.0.0.1"'),
        ('[model]\nsource = ""', 'F:2: model.source: is empty; expected "tiny", a folder, or a hub id'),
        (
            "[training]\nlearning_rate = inf",
            "F:2: training.learning_rate: inf is not right; expected a number, above 0 and below 1",
        ),
        ("[training]\nprocesses = 2", "F:2: training.processes: 2 is not right; expected 1"),
        (
            "[training]\nseed = 9223372036854775808",
            "F:2: training.seed: 9223372036854775808 is too large; expected a whole number, at least 0",
        ),
        (
            "[consolidation]\nafter = 03:00:00",
            f"F:2: consolidation.after: 03:00:00 is not right; expected {CLOCK_EXAMPLE}",
        ),
        (
            '[disk]\nwarn_below = "2GiB"',
            "F:2: disk.warn_below: 2GiB is less than disk.refuse_below (10GiB): "
            "the warning would come after the refusal; raise the one or lower the other",
        ),
        (
            '[inbox]\nmax_line = "2GiB"\nmax_file = "1GiB"',
            "F:2: inbox.max_line: 2GiB is more than inbox.max_file (1GiB)",
        ),
        ("[inbox]\nsettle = -1", f"F:2: inbox.settle: -1 is not right; expected {DURATION_EXAMPLE}"),
    ],
)  # fmt: skip
def test_a_refusal_in_its_words(file: Path, text: str, told: str) -> None:
    assert problems(file, text) == [told]


def test_a_wrong_override_is_told_as_one(file: Path) -> None:
    assert problems(file, "[disk]\nevery = 1\n", disk__every="never", http__prt=1) == [
        "command line: http.prt: unknown key; did you mean http.port?",
        f"command line: disk.every: 'never' is not {DURATION_EXAMPLE}",
    ]
    assert problems(file, "disk = 1", disk__every=1) == [
        "F:1: disk: must be a section: write [disk] on a line of its own"
    ]


def test_a_default_gives_way_to_what_the_file_says(file: Path) -> None:
    config = read(file, '[disk]\nrefuse_below = "900TB"\n[inbox]\nmax_file = "1MB"\n').config
    assert config.disk.warn_below == config.disk.refuse_below == 900 * 10**12
    assert config.inbox.max_line == config.inbox.max_file == 10**6


def test_a_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(file)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(file.parent)
    assert problems(file, "[disk]\nevery = \n[http]") == ["F:2: not TOML: Invalid value"]
    assert problems(file, "[disk]\n\nevery =") == ["F:3: not TOML: Invalid value (at end of document)"]
    file.write_bytes(b'[model]\nsource = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "configs").glob("*.toml")))
def test_the_configurations_that_we_ship_are_right(name: str) -> None:
    load(ROOT / "configs" / name)


# ---------------------------------------------------------------- lines of keys


def test_lines_of_keys() -> None:
    text = '\n# c\n[a.b]\nx = 1\ny = [\n 1,\n 2,\n]\nz = "[no.table]"\n'
    text += '[c]\n"q r".s = """\n[d]\n"""\ni = {j = {k = 1}}\n[[e]]\nf = 1\n'
    assert key_lines(text) == {
        ("a",): 3, ("a", "b"): 3, ("a", "b", "x"): 4, ("a", "b", "y"): 5, ("a", "b", "z"): 9, ("c",): 10,
        ("c", "q r"): 11, ("c", "q r", "s"): 11, ("c", "i"): 14, ("c", "i", "j"): 14, ("c", "i", "j", "k"): 14,
        ("e",): 15, ("e", "f"): 16,
    }  # fmt: skip


def test_other_signs_for_the_end_of_a_line_are_none_in_toml() -> None:
    assert key_lines('# a\u2028b\x85c\n[a]\nb = "\u2029"\nc = 1\n') == {("a",): 2, ("a", "b"): 3, ("a", "c"): 4}


@given(
    st.lists(
        st.tuples(st.sampled_from(["disk.every", "http.port", "queue.keep_done"]), st.integers(0, 3), st.booleans()),
        unique_by=lambda entry: entry[0],
    )
)
def test_the_line_found_is_the_line_it_was_written_on(entries: list[tuple[str, int, bool]]) -> None:
    lines: list[str] = []
    expected = {}
    for key, blanks, comment in entries:
        section, name = key.split(".")
        lines += [""] * blanks + [f"[{section}]"] + (["# port = 1"] if comment else [])
        lines.append(f"  {name}=1 # [x]")
        expected[section, name] = len(lines)
    found = key_lines("\n".join(lines))
    assert {path: line for path, line in found.items() if len(path) == 2} == expected


# ---------------------------------------------------------------- marks, differences, schema


def test_every_key_has_a_mark_and_every_default_passes_its_own_check(file: Path) -> None:
    known = marks()
    assert set(flat(Config())) == {key for key in known if not key.startswith("supervision.")}
    assert known["disk.refuse_below"] == "live"
    assert known["training.method"] == "home"
    assert known["training.epochs"] == "next_job"
    assert known["http.port"] == "restart"
    assert known["supervision.*.period"] == "restart"
    text = "".join(
        f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
        for section, table in msgspec.to_builtins(Config()).items()
    )
    assert read(file, text).config == Config()


def test_differences_carry_their_marks(file: Path) -> None:
    old = read(file, "[supervision.core]\nperiod = 1\n").config
    new = read(file, "[disk]\nevery = 11\n[training]\nepochs = 2\n[supervision.edge]\nperiod = 1\n").config
    assert difference(old, old) == []
    assert sorted(difference(old, new)) == [
        ("disk.every", "live"),
        ("supervision.core.period", "restart"),
        ("supervision.edge.period", "restart"),
        ("training.epochs", "next_job"),
    ]
    assert difference(Config(), read(file, '[disk]\nevery = "10s"').config) == []


def test_the_schema_knows_all_keys_and_the_ways_to_write_them() -> None:
    made = schema()["$defs"]
    assert set(made["DiskSection"]["properties"]) == set(sections()["disk"])
    assert set(made["ChildSection"]["properties"]) == set(child_keys())
    number, text = made["DiskSection"]["properties"]["refuse_below"]["anyOf"]
    assert number["type"] == "integer"
    assert re.match(text["pattern"], "10GiB") and not re.match(text["pattern"], "ten")
    assert made["ConsolidationSection"]["properties"]["after"]["default"] == "03:00"
    assert made["TrainingSection"]["properties"]["method"]["x-mark"] == "home"
