"""Names in packages that are read and never imported: for wheels that cannot be installed here.

`Wheels` looks definitions up in the sources inside wheel files, through re-exports (of `.pyi`
files, too, from which Isaac Lab's modules load lazily) and base classes. `problems` walks a file of
ours and says what it uses that is not there: imported names, members of objects whose class a table
tells, and keywords.
"""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A definition and the module it stands in; a module is a definition of no node."""

    module: str
    node: ast.stmt | None


class Wheels:
    """Sources of some wheels. In Isaac Lab 2.3 packages lie under `isaaclab/source/NAME/`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._text: dict[str, bytes] = {}
        self._trees: dict[str, ast.Module] = {}
        self._found: dict[tuple[str, str], Found | None] = {}
        for path in paths:
            with zipfile.ZipFile(path) as wheel:
                for name in wheel.namelist():
                    if name.endswith((".py", ".pyi")) and "/test" not in name:
                        self._text[re.sub(r"^isaaclab/source/\w+/", "", name)] = wheel.read(name)

    def trees(self, module: str) -> Iterator[tuple[ast.Module, bool]]:
        """Of a module, its stub first, each with whether it is a package's."""
        base = module.replace(".", "/")
        for name in (f"{base}/__init__.pyi", f"{base}.pyi", f"{base}/__init__.py", f"{base}.py"):
            if name in self._text:
                if name not in self._trees:
                    self._trees[name] = ast.parse(self._text[name])
                yield self._trees[name], "/__init__." in name

    def find(self, module: str, name: str) -> Found | None:
        """The definition that `from module import name` gives, or None."""
        if (module, name) not in self._found:
            self._found[module, name] = None  # for modules that import each other
            self._found[module, name] = self._look_for(module, name)
        return self._found[module, name]

    def _look_for(self, module: str, name: str) -> Found | None:
        for tree, is_package in self.trees(module):
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    package = module.split(".")
                    package = package[: len(package) - node.level + is_package]
                    source = node.module or ""
                    if node.level:
                        source = ".".join([*package, *filter(None, [node.module])])
                    for alias in node.names:
                        if alias.name == "*" or (alias.asname or alias.name) == name:
                            target = name if alias.name == "*" else alias.name
                            if found := self.find(source, target):
                                return found
            for node in _statements(tree.body):
                if name in _defined(node):
                    return Found(module, node)
        if next(self.trees(f"{module}.{name}"), None):
            return Found(f"{module}.{name}", None)
        return None

    def bases(self, found: Found) -> Iterator[Found]:
        """A class and all it derives from that is in these sources."""
        yield found
        assert isinstance(found.node, ast.ClassDef)
        for base in found.node.bases:
            first, *rest = ast.unparse(base).split(".")
            parent = self.find(found.module, first.partition("[")[0])
            for name in rest:
                parent = parent and self.member(parent, name)
            if parent and isinstance(parent.node, ast.ClassDef):
                yield from self.bases(parent)

    def member(self, found: Found, name: str) -> Found | None:
        """An attribute of a module or a class; of a class also what its methods give `self`."""
        if found.node is None:
            return self.find(found.module, name)
        if not isinstance(found.node, ast.ClassDef):
            return None
        for cls in self.bases(found):
            assert isinstance(cls.node, ast.ClassDef)
            for node in _statements(cls.node.body):
                if name in _defined(node):
                    return Found(cls.module, node)
            for node in ast.walk(cls.node):
                if isinstance(node, (ast.Assign, ast.AnnAssign)):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    if any(ast.unparse(target) == f"self.{name}" for target in targets):
                        return Found(cls.module, node)
        return None

    def keywords(self, found: Found) -> set[str] | None:
        """What a call of it takes by name; None: anything."""
        if isinstance(found.node, ast.FunctionDef):
            arguments = found.node.args
            if arguments.kwarg:
                return None
            return {a.arg for a in (*arguments.args, *arguments.kwonlyargs)} - {"self", "cls"}
        if isinstance(found.node, ast.ClassDef):
            decorators = {ast.unparse(d).partition("(")[0] for d in found.node.decorator_list}
            if decorators & {"configclass", "dataclass"}:
                return {
                    name
                    for cls in self.bases(found)
                    for node in getattr(cls.node, "body", [])
                    if isinstance(node, (ast.AnnAssign, ast.Assign))
                    for name in _defined(node)
                }
            init = self.member(found, "__init__")
            return self.keywords(init) if init else set()
        return None


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """With those that are there under a condition only."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _statements([*node.body, *node.orelse])


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()


def problems(
    source: str, wheels: Wheels, packages: Sequence[str], types: Mapping[str, Sequence[str]]
) -> list[str]:
    """What a file of ours uses and the wheels do not have, one line each.

    Args:
        source: the file's text.
        wheels: where to look.
        packages: top-level packages that are looked for.
        types: pattern of an expression -> `module:Class` of what it may be, one or several.
    """
    tree = ast.parse(source)
    wrong: list[str] = []
    imported: dict[str, Found] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in packages:
            for alias in node.names:
                if found := wheels.find(node.module or "", alias.name):
                    imported[alias.name] = found
                else:
                    wrong.append(f"from {node.module} import {alias.name}")

    def meanings(node: ast.expr) -> list[Found | None]:
        """What an expression may be; None where it should be something and is not."""
        text = ast.unparse(node)
        if text in imported:
            return [imported[text]]
        for pattern, names in types.items():
            if re.fullmatch(pattern, text):
                return [wheels.find(*name.split(":")) for name in names]
        if isinstance(node, ast.Attribute):
            return [found and wheels.member(found, node.attr) for found in meanings(node.value)]
        return []

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            for owner in meanings(node.value):
                where = owner and (owner.module, getattr(owner.node, "name", ""))
                known = owner and (owner.node is None or isinstance(owner.node, ast.ClassDef))
                if owner is None or (known and wheels.member(owner, node.attr) is None):
                    wrong.append(f"{ast.unparse(node)}: not in {where}")
        if isinstance(node, ast.Call):
            for callee in meanings(node.func):
                accepted = callee and wheels.keywords(callee)
                if accepted is not None:
                    wrong += [
                        f"{ast.unparse(node.func)}: no keyword {keyword.arg}"
                        for keyword in node.keywords
                        if keyword.arg and keyword.arg not in accepted
                    ]
    return wrong
