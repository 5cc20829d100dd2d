"""From a row to token ids and the tokens that bear loss: all of a text, of the rest only what the model is to say.

Masks are never found by comparing two tokenisations of a string: prompt and completion are encoded apart and joined,
and a conversation is marked by its template (``{% generation %}``) or by rendering it turn by turn and demanding exact
prefixes.
"""

from __future__ import annotations

from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from actors.inbox.rows import BadRow, CompletionRow, MessagesRow, Row, TextRow
from actors.trainer.engine import Encoded


class Encoder:
    """Turns rows into tokens with one tokenizer and one length limit."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._begin = _leading(tokenizer)
        self._end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self._template = _template(tokenizer)
        # which characters became which tokens is known of fast tokenizers only
        self._marked = tokenizer.is_fast and "generation" in _blocks(self._template)

    def encode(self, row: Row) -> Encoded:
        """Return the row's tokens, cut to ``max_length``.

        Raises:
            BadRow: nothing of it can be trained; the text says why.
        """
        match row:
            case TextRow(text):
                encoded = self._text(text)
            case CompletionRow(prompt, completion):
                encoded = self._completion(prompt, completion)
            case MessagesRow():
                encoded = self._conversation([{"role": turn.role, "content": turn.content} for turn in row.messages])
        if not encoded.targets:
            raise BadRow("no token is left to train on")
        return encoded

    def _text(self, text: str) -> Encoded:
        ids = [*self._begin, *self._ids(text)]
        room = self._max_length - len(self._end)
        ids = [*ids[:room], *self._end]
        return Encoded(ids, [True] * len(ids))

    def _completion(self, prompt: str, completion: str) -> Encoded:
        before = [*self._begin, *self._ids(prompt)]
        after = [*self._ids(completion), *self._end]
        return self._cut_left([*before, *after], [False] * len(before) + [True] * len(after))

    def _conversation(self, messages: list[dict[str, str]]) -> Encoded:
        if not self._template:
            raise BadRow("this model has no chat template: give {prompt, completion} or {text} rows instead")
        try:
            ids, trained = self._by_markers(messages) if self._marked else self._by_prefixes(messages)
        except jinja2.TemplateError as error:
            raise BadRow(f"the model's chat template refuses it: {error}") from error
        if not any(trained):
            raise BadRow("the model's chat template marks nothing in it as said by the assistant")
        return self._cut_left(ids, trained)

    def _by_markers(self, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
        """Find the tokens of what stands between the markers.

        Not by ``return_assistant_tokens_mask``: where offsets leave out white space (Llama 3's do), that passes over
        all turns from one that begins with a space, and marks all that follows one that ends with one.
        """
        (text,), (ranges,) = render_jinja_template(
            [messages], chat_template=self._template, return_assistant_tokens_mask=True,
            **self._tokenizer.special_tokens_map,
        )  # fmt: skip
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        marks = bytearray(len(text))
        for start, stop in ranges:
            marks[start:stop] = b"\1" * (stop - start)
        trained, last = [], 0
        for begin, end in found["offset_mapping"]:
            begin, last = min(begin, last), end  # what was left out before a token belongs to it
            trained.append(1 in marks[begin:end])
        return list(found["input_ids"]), trained

    def _by_prefixes(self, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
        ids = self._render(messages, False)
        trained = [False] * len(ids)
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if not index:
                raise BadRow(
                    "it begins with the assistant, and the model's chat template does not mark where its words "
                    "begin: put a user's or a system's message before"
                )
            before = self._render(messages[:index], True)
            after = self._render(messages[: index + 1], False)
            if ids[: len(before)] != before or ids[: len(after)] != after or len(after) <= len(before):
                raise BadRow(
                    f"the model's chat template writes messages[{index}] differently once more follow, so it cannot "
                    "be told which tokens are the assistant's: split the conversation, or use a template with "
                    "{% generation %} markers"
                )
            trained[len(before) : len(after)] = [True] * (len(after) - len(before))
        return ids, trained

    def _render(self, messages: list[dict[str, str]], prompt: bool) -> list[int]:
        rendered = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=True, return_dict=True, add_generation_prompt=prompt
        )
        return list(rendered["input_ids"])

    def _cut_left(self, ids: list[int], trained: list[bool]) -> Encoded:
        """Cut what follows the last trained token, then from the left: the last trained token always stays.

        A leading begin-of-text token is kept in place, since a model has hardly ever seen a text without it.
        """
        end = len(ids) - trained[::-1].index(True)
        ids, trained = ids[:end], trained[:end]
        if (surplus := len(ids) - self._max_length) > 0:
            first = 1 if self._begin and ids[:1] == self._begin[:1] else 0
            ids = [*ids[:first], *ids[first + surplus :]]
            trained = [*trained[:first], *trained[first + surplus :]]
        return Encoded(ids, trained)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _leading(tokenizer: Any) -> list[int]:
    """Return the token that begins a text for this model, if its tokenizer has one."""
    begun = tokenizer("", add_special_tokens=True)["input_ids"]
    if tokenizer.bos_token_id is not None and tokenizer.bos_token_id in begun:
        return [tokenizer.bos_token_id]
    return []


def _template(tokenizer: Any) -> str | None:
    """Return the chat template; of several with names, the one named ``default``."""
    found = tokenizer.chat_template
    template: str | None = found.get("default") if isinstance(found, dict) else found
    return template


def _blocks(template: str | None) -> set[str]:
    """Return the names of the block tags in a chat template: none, if it is not one."""
    names, previous = set(), ""
    try:
        for _, kind, text in jinja2.Environment(autoescape=False).lex(template or ""):
            if kind == "name" and previous == "block_begin":
                names.add(text)
            if kind != "whitespace":
                previous = kind
    except jinja2.TemplateSyntaxError:
        return set()  # said of each conversation, when it is rendered
    return names
