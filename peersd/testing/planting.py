"""Bugs as patches: read, applied to a tree by their text alone, and planted in a copy of it.

A patch is a file in three parts: a sentence on what is wrong with the product then; a head; and a diff, as git makes it. Its line
numbers are not looked at: each hunk has to stand once in its file, wherever that is now. A tree that has moved on so far that it
does not is no place for the bug.

The head has `by`, the checks that may find it; `simulator` or `swarm` or both, each with the seeds that are tried there first;
and `missed: yes` if nothing finds it yet.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from peersd.testing.checkers import CHECKERS, Bench, Checker
from peersd.testing.simulator.script import parse_numbers


class PatchFailed(Exception):
    """A patch has another form, or does not apply to the tree as it is."""


@dataclass(frozen=True)
class Change:
    """A hunk: a text that stands once in a file, and what takes its place."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class PlantedBug:
    """A patch.

    Attributes:
        name: of its file, without the suffix.
        does: what is wrong with the product then.
        by: the checks that may find it, any of which will do.
        seeds: by where it is looked for, those that have found it, which are tried first.
        is_missed: whether it is known that nothing finds it.
        changes: its hunks.
    """

    name: str
    does: str
    by: tuple[Checker, ...]
    seeds: Mapping[Bench, tuple[int, ...]]
    is_missed: bool
    changes: tuple[Change, ...]


def parse_patch(name: str, text: str) -> PlantedBug:
    """Reads a patch.

    Raises:
        PatchFailed: it has another form.
    """
    head, _, diff = text.partition("\n--- ")
    does, *rest = head.splitlines()
    fields = {key: value for key, _, value in (line.partition(": ") for line in rest)}
    try:
        by = tuple(Checker(one) for one in fields["by"].split(", "))
        seeds = {bench: tuple(sorted(parse_numbers(fields[bench]))) for bench in Bench if bench in fields}
        is_missed = {"no": False, "yes": True}[fields.get("missed", "no")]
    except (KeyError, ValueError) as error:
        raise PatchFailed(f"{name}: its head lacks, or has wrong: {error}") from error
    if not seeds:
        raise PatchFailed(f"{name}: its head does not say where it is looked for: {', '.join(Bench)}")
    for bench in seeds:
        if not CHECKERS[bench] & set(by):
            raise PatchFailed(f"{name}: there is none of these checks in the {bench}: {', '.join(by)}")
    changes = tuple(_parse_diff(name, "--- " + diff))
    if not changes:
        raise PatchFailed(f"{name}: it changes nothing")
    return PlantedBug(name, does, by, seeds, is_missed, changes)


def _parse_diff(name: str, diff: str) -> Iterator[Change]:
    path = ""
    old: list[str] = []
    new: list[str] = []
    for line in [*diff.splitlines(), "@@"]:
        if line.startswith(("@@", "--- ", "+++ ")):
            if old:
                yield Change(path, "".join(old), "".join(new))
            old, new = [], []
            if line.startswith("+++ "):
                path = line.removeprefix("+++ b/")
            continue
        if line[:1] not in ("", " ", "-", "+") or not path:
            raise PatchFailed(f"{name}: {line!r} is no line of a diff")
        if line[:1] != "+":
            old.append(line[1:] + "\n")
        if line[:1] != "-":
            new.append(line[1:] + "\n")


def load_bugs(folder: Path) -> list[PlantedBug]:
    """All patches in a folder, by name.

    Raises:
        PatchFailed: one has another form.
    """
    return [parse_patch(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.patch"))]


def apply_patch(bug: PlantedBug, root: Path) -> Mapping[str, str]:
    """What the files that a patch changes become, by path; nothing is written.

    Args:
        bug: the patch.
        root: of the tree that it is for.

    Raises:
        PatchFailed: a text does not stand there once, or what comes of it is no Python, or imports what is not there.
    """
    texts: dict[str, str] = {}
    for change in bug.changes:
        try:
            text = texts[change.path] if change.path in texts else (root / change.path).read_text(encoding="utf-8")
        except OSError as error:
            raise PatchFailed(f"{bug.name}: {change.path} cannot be read") from error
        if text.count(change.old) != 1:
            first = next(line.strip() for line in change.old.splitlines() if line.strip())
            raise PatchFailed(f"{bug.name}: {text.count(change.old)} times in {change.path}, and not once: {first} …")
        texts[change.path] = text.replace(change.old, change.new)
    for path, text in texts.items():
        try:
            missing = [f"{name} of {module}" for module, name in _imported(text) if not _offers(module, name, root)]
        except SyntaxError as error:
            raise PatchFailed(f"{bug.name}: {error}") from error
        if missing:
            raise PatchFailed(f"{bug.name}: {path} imports what is not there: {', '.join(missing)}")
    return texts


def _imported(text: str) -> Iterator[tuple[str, str]]:
    """What a text imports from modules: their names, and those of their own."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.module, alias.name) for alias in node.names)


def _offers(module: str, name: str, root: Path) -> bool:
    """Whether a module of a tree binds a name; of a module that is none of the tree's, or a package, it is taken to."""
    path = Path(*module.split(".")).with_suffix(".py")
    found = [folder / path for folder in (root, root / "protocol") if (folder / path).is_file()]
    if not found:
        return True
    for node in ast.walk(ast.parse(found[0].read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bounds = [node.name]
            case ast.Name(id=bound, ctx=ast.Store()):
                bounds = [bound]
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bounds = [alias.asname or alias.name for alias in aliases]
            case _:
                continue
        if name in bounds:
            return True
    return False


def find_unfit(bugs: Iterable[PlantedBug], root: Path) -> list[str]:
    """Which patches do not apply to a tree, and why; none if all is well."""
    unfit: list[str] = []
    for bug in bugs:
        try:
            apply_patch(bug, root)
        except PatchFailed as error:
            unfit.append(str(error))
    return unfit


def plant(bug: PlantedBug | None, root: Path, parts: Iterable[str], folder: Path) -> None:
    """Copies parts of a tree to a folder, with the bug if there is one.

    Raises:
        PatchFailed: the patch does not apply.
    """
    texts = apply_patch(bug, root) if bug else {}
    for part in parts:
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in texts.items():
        (folder / path).write_text(text, encoding="utf-8")
