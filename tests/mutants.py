"""Copies of a module with a bug in them, so that each check of an invariant can be seen to fail."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def mutant(module: ModuleType, old: str, new: str) -> Iterator[ModuleType]:
    """A copy of *module* in which one text, which must be there, reads another.

    It is listed among the modules, where dataclasses look their annotations up.
    """
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert old in source, f"{old!r} is gone from {module.__name__}: renew the mutant"
    copy = ModuleType(f"{module.__name__}_mutant")
    sys.modules[copy.__name__] = copy
    try:
        exec(compile(source.replace(old, new), f"<{copy.__name__}>", "exec"), vars(copy))
        yield copy
    finally:
        del sys.modules[copy.__name__]
