"""Loss falls on what the model is to say, and on nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from actors.inbox.rows import BadRow, CompletionRow, MessagesRow, TextRow, Turn
from actors.trainer.engine import Encoded
from actors.trainer.masks import Encoder
from actors.trainer.tiny import CHAT_TEMPLATE, tiny_tokenizer

BEGUN = (Turn("system", "be kind"), Turn("user", "hi"), Turn("assistant", "hello"))
TALK = MessagesRow((*BEGUN, Turn("user", "more"), Turn("assistant", "no")))
UNMARKED = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
REWRITING = UNMARKED.replace("{{ bos_token }}", "{{ bos_token }}{{ messages | length }}")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(512)


@pytest.fixture
def template(tokenizer: Any) -> Any:
    """Lets a test give the tokenizer another template."""
    before = tokenizer.chat_template

    def use(template: str | None) -> Any:
        tokenizer.chat_template = template
        return tokenizer

    yield use
    tokenizer.chat_template = before


def said(tokenizer: Any, encoded: Encoded) -> str:
    """The trained tokens as text."""
    return str(tokenizer.decode([id for id, on in zip(encoded.ids, encoded.trained, strict=True) if on]))


def test_a_text_is_trained_whole(tokenizer: Any) -> None:
    encoded = Encoder(tokenizer, 64).encode(TextRow("one two"))
    assert said(tokenizer, encoded) == "one two<|end|>"
    assert encoded.targets == len(encoded.ids) - 1, "nothing predicts the first token"


def test_of_a_completion_the_prompt_is_not_trained(tokenizer: Any) -> None:
    encoded = Encoder(tokenizer, 64).encode(CompletionRow("two and two is", " four"))
    assert said(tokenizer, encoded) == " four<|end|>"
    assert tokenizer.decode(encoded.ids) == "two and two is four<|end|>"


def test_prompt_and_completion_are_encoded_apart(tokenizer: Any) -> None:
    """``th`` + ``ere`` may be one token: then the border would fall inside of it."""
    encoded = Encoder(tokenizer, 64).encode(CompletionRow("th", "ere"))
    assert said(tokenizer, encoded) == "ere<|end|>"


@pytest.mark.parametrize("way", [CHAT_TEMPLATE, UNMARKED], ids=["markers", "prefixes"])
def test_of_a_conversation_the_assistant_is_trained(template: Any, way: str) -> None:
    tokenizer = template(way)
    encoded = Encoder(tokenizer, 64).encode(TALK)
    assert said(tokenizer, encoded) == "hello<|end|>no<|end|>", "the end of a turn bears loss too"
    assert tokenizer.decode(encoded.ids).startswith("<|begin|><|system|>be kind<|end|><|user|>hi")


def test_a_template_that_rewrites_what_was_said_is_refused(template: Any) -> None:
    with pytest.raises(BadRow, match=r"messages\[2\]"):
        Encoder(template(REWRITING), 64).encode(TALK)


def test_a_template_that_marks_nothing_is_refused(template: Any) -> None:
    marked = UNMARKED + "{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    with pytest.raises(BadRow, match="nothing"):
        Encoder(template(marked), 64).encode(TALK)


def test_a_template_that_raises_is_refused(template: Any) -> None:
    with pytest.raises(BadRow, match="roles must alternate"):
        Encoder(template("{{ raise_exception('roles must alternate') }}"), 64).encode(TALK)


def test_no_template_is_refused(template: Any) -> None:
    with pytest.raises(BadRow, match="no chat template"):
        Encoder(template(None), 64).encode(TALK)


def test_the_word_generation_alone_is_no_marker(template: Any) -> None:
    tokenizer = template("{# no {% generation %} here #}" + UNMARKED)
    assert said(tokenizer, Encoder(tokenizer, 64).encode(TALK)) == "hello<|end|>no<|end|>"


def test_what_follows_the_last_trained_token_is_cut(tokenizer: Any) -> None:
    encoded = Encoder(tokenizer, 64).encode(MessagesRow((*TALK.messages, Turn("user", "and then?"))))
    assert encoded.trained[-1]


@pytest.mark.parametrize("length", [8, 9, 12, 200])
@pytest.mark.parametrize(
    "row",
    [
        TextRow("many words " * 20),
        CompletionRow("a long question " * 20, " short"),
        CompletionRow("short?", " a long answer" * 20),
        MessagesRow((Turn("user", "so long " * 20), Turn("assistant", "yes"))),
    ],
    ids=["text", "long prompt", "long completion", "messages"],
)
def test_cutting_keeps_the_last_trained_token(tokenizer: Any, row: Any, length: int) -> None:
    whole = Encoder(tokenizer, 10_000).encode(row)
    cut = Encoder(tokenizer, length).encode(row)
    assert len(cut.ids) == min(length, len(whole.ids))
    assert cut.trained[-1]
    assert cut.ids[-1] == whole.ids[-1] == tokenizer.eos_token_id
    assert cut.targets > 0


def test_a_prompt_is_cut_from_its_left(tokenizer: Any) -> None:
    encoded = Encoder(tokenizer, 8).encode(CompletionRow("a b c d e f g h i j k", " z"))
    assert tokenizer.decode(encoded.ids).endswith("i j k z<|end|>")
    assert said(tokenizer, encoded) == " z<|end|>"


def test_a_model_that_knows_a_beginning_gets_it_and_keeps_it(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    begins = tiny_tokenizer(512)
    begins._tokenizer.post_processor = TemplateProcessing("<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    encoder = Encoder(begins, 8)
    for row in (TextRow("x"), CompletionRow("a b c d e f g h i j k", " z"), TALK):
        ids = encoder.encode(row).ids
        assert ids.count(begins.bos_token_id) == 1
        assert ids[0] == begins.bos_token_id


def test_a_row_with_no_token_left_is_refused(tokenizer: Any) -> None:
    bare = tiny_tokenizer(512)
    bare.eos_token = None
    with pytest.raises(BadRow, match="no token"):
        Encoder(bare, 8).encode(TextRow("a"))


def trimming() -> Any:
    """A tokenizer whose offsets leave out white space, as Llama 3's do."""
    from tokenizers.processors import ByteLevel

    trims = tiny_tokenizer(512)
    trims._tokenizer.post_processor = ByteLevel(trim_offsets=True)
    return trims


def test_markers_hold_where_offsets_leave_out_white_space() -> None:
    tokenizer = trimming()
    template = CHAT_TEMPLATE.replace("message['content'] + eos_token }}{% endg", "message['content'] + '\n' }}{% endg")
    assert template != CHAT_TEMPLATE
    tokenizer.chat_template = template
    turns = (Turn("user", "hi"), Turn("assistant", "\n yes 🚂"), Turn("user", "x"), Turn("assistant", " no"))
    assert said(tokenizer, Encoder(tokenizer, 200).encode(MessagesRow(turns))) == "\n yes 🚂\n no\n"


def test_without_offsets_a_marked_template_is_read_by_prefixes(template: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = template(CHAT_TEMPLATE)
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda self: False))
    monkeypatch.delattr(Encoder, "_by_markers")
    assert said(tokenizer, Encoder(tokenizer, 64).encode(TALK)) == "hello<|end|>no<|end|>"


def test_named_templates_the_default_is_meant(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", {"default": CHAT_TEMPLATE, "tool_use": "nothing"})
    assert said(tokenizer, Encoder(tokenizer, 64).encode(TALK)) == "hello<|end|>no<|end|>"
    monkeypatch.setattr(tokenizer, "chat_template", {"tool_use": "nothing"})
    with pytest.raises(BadRow, match="no chat template"):
        Encoder(tokenizer, 64).encode(TALK)


def test_a_conversation_that_the_assistant_begins(template: Any) -> None:
    first = MessagesRow((Turn("assistant", "welcome"), Turn("user", "hi"), Turn("assistant", "yes")))
    tokenizer = template(CHAT_TEMPLATE)
    assert said(tokenizer, Encoder(tokenizer, 64).encode(first)) == "welcome<|end|>yes<|end|>"
    with pytest.raises(BadRow, match="begins with the assistant"):
        Encoder(template(UNMARKED), 64).encode(first)


def test_a_broken_template_refuses_conversations_only(template: Any) -> None:
    tokenizer = template("{% if '")
    encoder = Encoder(tokenizer, 64)
    assert encoder.encode(TextRow("one two")).targets
    with pytest.raises(BadRow, match="chat template refuses it"):
        encoder.encode(TALK)
