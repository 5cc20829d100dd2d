"""The text of a crash is the standard library's, the first time and every time after it."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from supervisor import tracebacks
from supervisor.tracebacks import traceback_of


def raised(fail: Callable[[], object]) -> BaseException:
    try:
        fail()
    except BaseException as error:  # noqa: BLE001  (it is what is looked at)
        return error
    raise AssertionError("nothing was raised")


def plainly() -> None:
    raise ValueError("boom", {}["x"] if None else 1)


def with_a_note() -> None:
    error = KeyError("who")
    error.add_note("this one")
    raise error


def from_another() -> None:
    try:
        plainly()
    except ValueError as error:
        raise OSError("after it") from error


def in_the_middle_of_another() -> None:
    try:
        plainly()
    except ValueError:
        with_a_note()


def hiding_another() -> None:
    try:
        plainly()
    except ValueError:
        raise OSError("alone") from None


def in_a_group() -> None:
    raise ExceptionGroup("both", [raised(plainly), raised(with_a_note)])  # type: ignore[list-item]


def without_an_end() -> None:
    without_an_end()


def there_and_back(depth: int = 100) -> None:
    if depth == 0:
        plainly()
    back_and_there(depth - 1)


def back_and_there(depth: int) -> None:
    there_and_back(depth)


def of_no_source() -> None:
    exec("def f():\n  1 / 0\nf()")


def that_cannot_be_parsed() -> None:
    compile("a b", "somewhere.py", "exec")


class OfOurs(ValueError):
    pass


class ThatCannotBeShown(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


def of_ours() -> None:
    raise OfOurs("two\nlines")


def without_a_word() -> None:
    raise ValueError


def that_cannot_be_shown() -> None:
    raise ThatCannotBeShown


def with_a_name_that_is_nearly_right() -> None:
    nearly = 1
    nearly += neerly  # type: ignore[name-defined]  # noqa: F821


def with_an_attribute_that_is_nearly_right() -> None:
    "".splitt()  # type: ignore[attr-defined]


def of_a_module_that_is_not_there() -> None:
    from traceback import format_tc  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize(
    "fail",
    [
        plainly,
        of_ours,
        without_a_word,
        that_cannot_be_shown,
        with_a_name_that_is_nearly_right,
        with_an_attribute_that_is_nearly_right,
        of_a_module_that_is_not_there,
        with_a_note,
        from_another,
        in_the_middle_of_another,
        hiding_another,
        in_a_group,
        without_an_end,
        there_and_back,
        of_no_source,
        that_cannot_be_parsed,
    ],
)
def test_it_says_what_the_standard_library_says(fail: Callable[[], object]) -> None:
    for _ in range(3):
        error = raised(fail)
        assert traceback_of(error) == "".join(traceback.format_exception(error))


def test_an_error_that_was_never_raised_has_no_frames() -> None:
    assert traceback_of(ValueError("x")) == "ValueError: x\n"


def test_two_places_of_one_function_are_told_apart() -> None:
    def fail(number: int) -> None:
        if number == 1:
            raise ValueError("one")
        raise ValueError("other")

    one, other = (traceback_of(raised(lambda number=number: fail(number))) for number in (1, 2))
    assert 'raise ValueError("one")' in one
    assert 'raise ValueError("other")' in other


def test_only_so_many_places_are_remembered() -> None:
    for number in range(2 * tracebacks._MOST_KNOWN):
        space: dict[str, Callable[[], object]] = {}
        exec(f"def fail():\n  raise ValueError({number})", space)
        assert str(number) in traceback_of(raised(space["fail"]))
    assert len(tracebacks._known) <= tracebacks._MOST_KNOWN
