"""Imports run one way, the public names are declared, and a service pays for what it imports."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import llm_patterns
from llm_patterns.catalog import Category

SOURCE = Path(__file__).parents[1] / "src"
MODULES = sorted((SOURCE / "llm_patterns").rglob("*.py"))

BASE = {"chat", "clock", "deadlines", "errors", "events", "layers", "quotas"}
SHARED = BASE | {"toolkit", "stores"}
MAY_IMPORT = (
    dict.fromkeys((*BASE, "catalog", "stores"), BASE)
    | {"toolkit": BASE | {"stores"}, "providers": SHARED}
    | {"simulation": SHARED | {"providers"}, "cli": SHARED | {"simulation"}}
    | {category.value: SHARED for category in Category}
    | {"pytest_plugin": SHARED | {"simulation"}}
)
"""For each part of the library, the other parts that it may know."""

ALSO = {"toolkit/fixtures.py": {"simulation"}}
"""What a file may know beyond its part: the fixtures are the simulation in a test's words."""

CORE = {"llm_patterns", "pydantic", "httpx", "genai_prices"}
HEAVY = {"httpx", "httpx2", "genai_prices", "pandas", "plotly", "IPython", "numpy", "course"}


def part(module: str) -> str:
    """`llm_patterns.simulation.loop` belongs to `simulation`."""
    return [*module.split("."), ""][1]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield every module that a syntax tree imports, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "llm_patterns":
            yield from (f"llm_patterns.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def test_a_part_imports_only_what_lies_below_it() -> None:
    """A pattern knows no other category, no simulation, no book; what is shared, no pattern."""
    wrong = []
    for path in MODULES:
        own = (path.relative_to(SOURCE / "llm_patterns").with_suffix("").parts)[0]
        if own == "__init__":
            continue
        allowed = MAY_IMPORT[own] | {own} | ALSO.get(_inside(path), set())
        for name in imports(ast.parse(path.read_text())):
            root = name.partition(".")[0]
            if root == "course" or (root == "llm_patterns" and part(name) not in allowed):
                wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong


def test_the_library_needs_only_its_declared_dependencies() -> None:
    """At import, nothing but the three dependencies and the standard library."""
    wrong = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        at_import = ast.Module([node for node in tree.body if not _is_type_checking(node)], [])
        for function in [
            n for n in ast.walk(at_import) if hasattr(n, "args") and hasattr(n, "body")
        ]:
            function.body = []  # a function's own imports are paid when it is called
        roots = {name.partition(".")[0] for name in imports(at_import)}
        allowed = CORE | ({"pytest"} if path.name == "pytest_plugin.py" else set())
        wrong += [(path.name, root) for root in roots - allowed - sys.stdlib_module_names]
    assert not wrong


def _inside(path: Path) -> str:
    return path.relative_to(SOURCE / "llm_patterns").as_posix()


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def public_modules() -> list[str]:
    """Every module and package of the library whose path has no underscore."""
    found = pkgutil.walk_packages(llm_patterns.__path__, "llm_patterns.")
    return [each.name for each in found if "._" not in each.name]


@pytest.mark.parametrize("name", public_modules())
def test_what_a_module_exports_is_declared(name: str) -> None:
    """`__all__` holds what exists; a package's holds all that it shows."""
    module = importlib.import_module(name)
    shown = {each for each, value in vars(module).items() if not isinstance(value, ModuleType)}
    public = {each for each in shown if not each.startswith("_")} - {"annotations"}
    declared = set(getattr(module, "__all__", []))
    assert declared <= public
    if hasattr(module, "__path__"):
        assert declared == public


@pytest.mark.parametrize(
    "name", ["llm_patterns", "llm_patterns.catalog", "llm_patterns.resilience"]
)
def test_importing_a_pattern_loads_no_heavy_package(name: str) -> None:
    """A service that imports one category loads no transport, no price table and no book."""
    program = f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    )
    loaded = {each.partition(".")[0] for each in json.loads(run.stdout)}
    assert not loaded & HEAVY
