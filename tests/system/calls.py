"""Who calls whom, read from the sources: each ``ref(NAME).call(...)`` and ``ref(NAME).request(...)`` below ``actors/``.

A name may be a string, a constant of this or of another module, or a parameter: then of each place that passes it. A
call whose target cannot be told so is an error, or a new way of calling could go unnoticed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CALLS = {"call", "request"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Unclear(Exception):
    """It cannot be told from the source who is called."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place that calls."""

    where: str
    target: str


def sites(source: str, where: str) -> Iterator[Site]:
    """Yield each call of an actor in the source of a module.

    Raises:
        Unclear: a target is neither a constant nor a parameter that is given constants.
    """
    tree = ast.parse(source)
    for function, call in _calls(tree):
        assert isinstance(call.func, ast.Attribute)
        at = f"{where}:{call.lineno}"
        for target in _names(tree, function, _addressee(function, call.func.value, at), at):
            yield Site(at, target)


def waits(source: str) -> bool:
    """Whether anything in the source of a module waits for anything."""
    return any(isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) for node in ast.walk(ast.parse(source)))


def _calls(tree: ast.Module) -> Iterator[tuple[Function, ast.Call]]:
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    inner = {id(below) for one in functions for below in ast.walk(one) if below is not one and below in functions}
    for function in functions:
        if id(function) in inner:
            continue  # walked with the one around it, whose parameters and variables it sees
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
                yield function, node


def _addressee(function: Function, receiver: ast.expr, at: str) -> ast.expr:
    """Return NAME of the ``ref(NAME)`` that a call goes to, directly or by way of a variable."""
    if isinstance(receiver, ast.Name):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and receiver.id in [getattr(one, "id", "") for one in node.targets]:
                return _addressee(function, node.value, at)
    if isinstance(receiver, ast.Call) and isinstance(receiver.func, ast.Attribute) and receiver.func.attr == "ref":
        return receiver.args[0]
    raise Unclear(f"{at}: who is {ast.unparse(receiver)}?")


def _names(tree: ast.Module, function: Function, name: ast.expr, at: str) -> Iterator[str]:
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        yield name.value
        return
    if not isinstance(name, ast.Name):
        raise Unclear(f"{at}: which actor is {ast.unparse(name)}?")
    parameters = [argument.arg for argument in function.args.args if argument.arg != "self"]
    if name.id not in parameters:
        yield _constant(tree, name.id, at)
        return
    passed = [
        (caller, node.args[parameters.index(name.id)])
        for caller in ast.walk(tree)
        if isinstance(caller, Function)
        for node in ast.walk(caller)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == function.name
    ]
    if not passed:
        raise Unclear(f"{at}: nobody here says what {name.id} is")
    for caller, argument in passed:
        yield from _names(tree, caller, argument, at)


def _constant(tree: ast.Module, name: str, at: str) -> str:
    """Return the value of a module's constant, whether it stands here or is imported."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            source = ROOT / f"{(node.module or '').replace('.', '/')}.py"
            return _constant(ast.parse(source.read_text()), name, at)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                pairs = (
                    zip(target.elts, node.value.elts, strict=True)
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                    else [(target, node.value)]
                )
                for one, value in pairs:
                    if getattr(one, "id", None) == name and isinstance(value, ast.Constant):
                        return str(value.value)
    raise Unclear(f"{at}: {name} is no constant")
