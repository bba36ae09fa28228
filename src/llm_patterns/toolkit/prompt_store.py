"""What does a place that keeps prompts promise, so that no version is lost and no label moves behind anyone's back?

It keeps two things, and only ever adds to them: the versions of each name, numbered from 1; and the history, every
save and every move of a label, in one order for each name. A label is not kept anywhere else: it points where its
last move put it. Writers of a name take turns. `MemoryPromptStore` is the whole of it for one process; the same over
SQLite and PostgreSQL is in `prompt_tables`.

Invariants, held for any interleaving of writers in any number of processes, and for the loss of the server:

1. The versions of a name are 1, 2, 3, ... without gaps, and each content has one number.
2. What was confirmed is there, and never changes: content that does not fit its digest is not handed out.
3. The moves of a label form a chain: each starts where the one before it ended.
4. A move with `expected` happens only if the label points there; one of two that expect the same fails.

Rolling back goes to where the label pointed before it was moved to where it points now; doing it again goes further
back, and never forward to what was rolled back from.

>>> import asyncio
>>> from datetime import UTC, datetime
>>> async def main():
...     store = MemoryPromptStore()
...     ada = Signature("ada", datetime(2026, 1, 5, tzinfo=UTC), "first draft")
...     await store.save("answer", Prompt("Answer {{question}}", model="small"), ada)
...     await store.move("answer", "production", 1, ada)
...     return await store.labels("answer")
>>> asyncio.run(main())
{'production': 1}
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple, Protocol

from llm_patterns.errors import LLMPatternsError
from llm_patterns.toolkit.prompts import Prompt

__all__ = [
    "ContentChanged",
    "LabelConflict",
    "LabelMove",
    "Labelled",
    "MemoryPromptStore",
    "NothingBefore",
    "PromptNotFound",
    "PromptSave",
    "PromptStore",
    "PromptVersion",
    "Signature",
]


class Signature(NamedTuple):
    """Who did something to a prompt, when and why."""

    by: str
    at: datetime
    why: str = ""


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """A prompt that was saved under a name, with the number it has there. `by`, `at` and `why` are the first save's."""

    name: str
    number: int
    prompt: Prompt
    by: str
    at: datetime
    why: str

    @property
    def digest(self) -> str:
        """Return what identifies the content, under any name and in any registry."""
        return self.prompt.digest


@dataclass(frozen=True, slots=True)
class PromptSave:
    """A save, as the history has it: the first of a content makes version `number`, others find it there."""

    name: str
    sequence: int
    number: int
    by: str
    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class LabelMove:
    """A move of a label from version `previous` (None: it is new) to `number`.

    `before` is the move that a rollback of this one returns to, by its `sequence` in the name's history.
    """

    name: str
    label: str
    sequence: int
    previous: int | None
    number: int
    before: int | None
    rollback: bool
    by: str
    at: datetime
    why: str


class Labelled(NamedTuple):
    """The version that a label points to, and the move that put it there."""

    version: PromptVersion
    move: LabelMove


class PromptNotFound(LLMPatternsError, LookupError):
    """There is no such name, version or label. Nothing is served in its place: `latest` may be anyone's draft."""

    def __init__(self, name: str, wanted: str, there: str = "") -> None:
        self.name = name
        self.wanted = wanted
        super().__init__(
            f"prompt {name!r} has no {wanted}" + (f"; it has {there}" if there else "")
        )


class LabelConflict(LLMPatternsError):
    """The label does not point where the mover expected: somebody else moved it. `move` is theirs (None: no label)."""

    def __init__(self, name: str, label: str, expected: int, move: LabelMove | None) -> None:
        self.name = name
        self.label = label
        self.expected = expected
        self.move = move
        theirs = (
            f"points to version {move.number}, moved there by {move.by}: {move.why!r}"
            if move
            else "does not exist"
        )
        wanted = f"to be at version {expected}" if expected else "not to exist"
        super().__init__(f"{label!r} of prompt {name!r} was expected {wanted}, but {theirs}")


class NothingBefore(LLMPatternsError):
    """The label can't be rolled back: it has not pointed anywhere else before."""

    def __init__(self, name: str, label: str, number: int) -> None:
        self.name = name
        self.label = label
        super().__init__(
            f"{label!r} of prompt {name!r} has pointed to nothing before version {number}; "
            "move it to the version that is wanted"
        )


class ContentChanged(LLMPatternsError):
    """A stored version does not fit its digest: somebody changed it behind the registry's back."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        super().__init__(
            f"the stored content of version {number} of prompt {name!r} was changed after it was saved; "
            "save what is wanted as a new version"
        )


class PromptStore(Protocol):
    """What a registry needs of a place that keeps prompts. Each method happens as a whole or not at all.

    Any may raise `StoreUnavailable`; trying again does no harm to a save, nor to a move with `expected`.
    """

    async def save(
        self, name: str, prompt: Prompt, signature: Signature
    ) -> tuple[PromptVersion, PromptSave]:
        """Return the version of *name* with this content, added if it is new, and the entry in the history."""

    async def move(
        self,
        name: str,
        label: str,
        to: int | None,
        signature: Signature,
        *,
        expected: int | None = None,
    ) -> Labelled:
        """Move *label* to version *to*, or roll it back where that is None.

        Only if it points to *expected*; 0 is nowhere, and None asks for nothing.
        """

    async def version(self, name: str, which: int | str) -> PromptVersion:
        """Return the version with this number or digest."""

    async def labelled(self, name: str, label: str) -> Labelled:
        """Return what *label* points to."""

    async def labels(self, name: str) -> dict[str, int]:
        """Return the version that each label points to, sorted."""

    async def history(self, name: str, limit: int) -> list[PromptSave | LabelMove]:
        """Return the last *limit* saves and moves, the newest first."""

    async def names(self) -> list[str]:
        """Return all names, sorted."""

    async def close(self) -> None:
        """Let go of what was opened for this store."""


def next_move(
    name: str,
    label: str,
    to: int | None,
    signature: Signature,
    *,
    sequence: int,
    current: LabelMove | None,
    before: LabelMove | None,
    expected: int | None,
) -> LabelMove:
    """Return the move that takes *label* from *current* to version *to*, or where that is None, back to *before*.

    *before* is the move that *current* names so. Where the label is at *to* already, that is *current* itself. Raises
    `LabelConflict`, `NothingBefore`, `PromptNotFound`.
    """
    at = current.number if current else 0
    if expected is not None and expected != at:
        raise LabelConflict(name, label, expected, current)
    if current is not None and to == at:
        return current
    if to is not None:
        number, back = to, current.sequence if current else None
    elif current is None:
        raise PromptNotFound(name, f"label {label!r}")
    elif before is None:
        raise NothingBefore(name, label, at)
    else:
        number, back = before.number, before.before
    return LabelMove(
        name=name,
        label=label,
        sequence=sequence,
        previous=at or None,
        number=number,
        before=back,
        rollback=to is None,
        by=signature.by,
        at=signature.at,
        why=signature.why,
    )


class MemoryPromptStore:
    """A store for tests and for a browser's Python: it ends with the process."""

    def __init__(self) -> None:
        self._versions: dict[str, list[PromptVersion]] = defaultdict(list)
        self._history: dict[str, list[PromptSave | LabelMove]] = defaultdict(list)

    async def save(
        self, name: str, prompt: Prompt, signature: Signature
    ) -> tuple[PromptVersion, PromptSave]:
        """Return the version with this content, added if it is new."""
        versions, history = self._versions[name], self._history[name]
        version = next((each for each in versions if each.prompt == prompt), None)
        if version is None:
            version = PromptVersion(name, len(versions) + 1, prompt, *signature)
            versions.append(version)
        save = PromptSave(name, len(history) + 1, version.number, *signature)
        history.append(save)
        return version, save

    async def move(
        self,
        name: str,
        label: str,
        to: int | None,
        signature: Signature,
        *,
        expected: int | None = None,
    ) -> Labelled:
        """Move *label*, or roll it back."""
        history = self._history.get(name, [])
        current = self._last_move(name, label)
        before = history[current.before - 1] if current and current.before else None
        assert not isinstance(before, PromptSave)
        move = next_move(
            name, label, to, signature, sequence=len(history) + 1,
            current=current, before=before, expected=expected,
        )  # fmt: skip
        version = await self.version(name, move.number)
        if move is not current:
            history.append(move)
        return Labelled(version, move)

    async def version(self, name: str, which: int | str) -> PromptVersion:
        """Return the version with this number or digest."""
        versions = self._versions.get(name, [])
        for version in versions:
            if which in (version.number, version.digest):
                return version
        raise no_version(name, which, len(versions))

    async def labelled(self, name: str, label: str) -> Labelled:
        """Return what *label* points to."""
        move = self._last_move(name, label)
        if move is None:
            raise no_label(name, label, await self.labels(name))
        return Labelled(await self.version(name, move.number), move)

    async def labels(self, name: str) -> dict[str, int]:
        """Return the version that each label points to."""
        moves = [each for each in self._history.get(name, []) if isinstance(each, LabelMove)]
        return dict(sorted({move.label: move.number for move in moves}.items()))

    async def history(self, name: str, limit: int) -> list[PromptSave | LabelMove]:
        """Return the last *limit* saves and moves, the newest first."""
        return list(islice(reversed(self._history.get(name, [])), limit))

    async def names(self) -> list[str]:
        """Return all names."""
        return sorted(self._versions)

    async def close(self) -> None:
        """Keep everything: there is nothing to let go of."""

    def _last_move(self, name: str, label: str) -> LabelMove | None:
        for each in reversed(self._history.get(name, [])):
            if isinstance(each, LabelMove) and each.label == label:
                return each
        return None


def no_version(name: str, which: int | str, count: int) -> PromptNotFound:
    wanted = f"version {which}" if isinstance(which, int) else f"version of digest {which}"
    return PromptNotFound(name, wanted, f"versions 1 to {count}" if count else "")


def no_label(name: str, label: str, labels: dict[str, int]) -> PromptNotFound:
    return PromptNotFound(name, f"label {label!r}", f"labels {', '.join(labels)}" if labels else "")
