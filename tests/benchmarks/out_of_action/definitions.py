"""Which definitions in the project's source files decide what some of its modules do; found by reading, not by running.

A definition is a function, a class or an assignment at the top of a module. It counts where it is named in a definition
that counts; so does, once anything of a module counts, what else stands at its top and at that of the modules it
imports, because importing runs it. Comments, docstrings and layout are no part of a definition. What is looked up by
strings is not seen.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from pipeline.fingerprint import digest

TOP = "<top>"  # stands for what is at the top of a module and defines nothing
ALL = "*"
_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
Target = tuple[str, str]  # a module and a name in it


def reached(modules: Iterable[str], root: Path, counts: Callable[[str], bool]) -> dict[str, str]:
    """Digests of what counts, by ``module:definition``, for all of the modules' definitions.

    counts: whether a module does, by its name; the others are taken for what cannot change a result.
    """
    found: dict[Target, str] = {}
    todo: list[Target] = [(module, ALL) for module in modules]
    seen: set[Target] = set()
    sources: dict[str, _Module | None] = {}
    while todo:
        module, name = target = todo.pop()
        if target in seen:
            continue
        seen.add(target)
        if module not in sources:
            sources[module] = _source(module, root) if counts(module) else None
        source = sources[module]
        if source is None:
            continue
        todo += [(module, TOP), *((package, TOP) for package in _packages(module))]
        if name == ALL:
            todo += [(module, each) for each in source.definitions]
        elif name in source.definitions:
            definition = source.definitions[name]
            found[target] = definition.digest
            todo += [one for use in definition.uses for one in source.meant(use, definition.imports)]
        elif name in source.imports:
            todo.append(source.imports[name])
        else:  # a module of a package, or nothing of ours
            todo.append((f"{module}.{name}", TOP))
        if name == TOP:
            todo += [(other, TOP) for other, _ in source.imports.values()]
    return {f"{module}:{name}": value for (module, name), value in sorted(found.items())}


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


@dataclass
class _Definition:
    """The statements that make one. uses: dotted names in them. imports: names that they import for themselves."""

    statements: list[ast.stmt] = field(default_factory=list)

    @cached_property
    def digest(self) -> str:
        return digest([ast.dump(_without_docstrings(statement)) for statement in self.statements])

    @cached_property
    def uses(self) -> set[str]:
        return {use for statement in self.statements for use in _names(statement)}

    @cached_property
    def imports(self) -> list[ast.Import | ast.ImportFrom]:
        nodes = (node for statement in self.statements for node in ast.walk(statement))
        return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


class _Module:
    """A source file, read. imports: what the names that it imports at its top mean."""

    def __init__(self, name: str, path: Path):
        self.name = name
        self.package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        self.definitions: dict[str, _Definition] = {TOP: _Definition()}
        self.imports: dict[str, Target] = {}
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self.imports |= self.bound(statement)
            elif not _is_command(statement) and not _is_text(statement):
                for name_ in _bound_by(statement) or [TOP]:
                    self.definitions.setdefault(name_, _Definition()).statements.append(statement)
        # imports under a condition bind names, too
        for node in self.definitions[TOP].imports:
            self.imports |= self.bound(node)

    def bound(self, node: ast.Import | ast.ImportFrom) -> dict[str, Target]:
        """What an import makes of each name. A module itself is its TOP."""
        if isinstance(node, ast.Import):
            whole = {alias.asname: (alias.name, TOP) for alias in node.names if alias.asname}
            first = {alias.name.split(".")[0] for alias in node.names if not alias.asname}
            return whole | {name: (name, TOP) for name in first}
        above = self.package[: len(self.package) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        return {alias.asname or alias.name: (module, alias.name) for alias in node.names}

    def meant(self, use: str, own: list[ast.Import | ast.ImportFrom]) -> Iterator[Target]:
        """What a dotted name may stand for. own: imports of the definition that uses it."""
        first, *rest = use.split(".")
        imports = dict(self.imports)
        for node in own:
            imports |= self.bound(node)
        if first in self.definitions:
            yield self.name, first
        elif first in imports:
            module, name = imports[first]
            whole = [name] if name != TOP else []
            # the name may be a module, or one further on: every reading of it
            for depth in range(len(rest) + 1):
                path = ".".join([module, *whole, *rest[:depth]])
                yield path, rest[depth] if depth < len(rest) else ALL if name == TOP or depth else TOP
            yield module, name


@lru_cache(4096)
def _read(name: str, path: Path, changed_ns: int) -> _Module:
    return _Module(name, path)


def _source(module: str, root: Path) -> _Module | None:
    place = root.joinpath(*module.split("."))
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.exists():
            return _read(module, path, path.stat().st_mtime_ns)
    return None


def _bound_by(statement: ast.stmt) -> list[str]:
    if isinstance(statement, _DEFINING):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets += [statement.target] if isinstance(statement, ast.AnnAssign) else []
    names = [node for target in targets for node in ast.walk(target)]
    plain = all(isinstance(node, ast.Name | ast.Tuple | ast.List | ast.Store) for node in names)
    return [node.id for node in names if isinstance(node, ast.Name)] if plain else []


def _is_command(statement: ast.stmt) -> bool:
    """``if __name__ == "__main__"``."""
    return isinstance(statement, ast.If) and "__name__" in _names(statement.test)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _names(node: ast.AST) -> set[str]:
    """Names with what follows after dots, such as ``np.linalg.norm``."""
    found: set[str] = set()
    todo = [node]
    while todo:
        node = todo.pop()
        chain, inner = [], node
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            found.add(".".join([inner.id, *reversed(chain)]))
        else:
            todo += ast.iter_child_nodes(inner) if chain else ast.iter_child_nodes(node)
    return found


def _without_docstrings(statement: ast.stmt) -> ast.stmt:
    for node in ast.walk(statement):
        if isinstance(node, _DEFINING) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return statement
