"""Decides, batch by batch and in order, which documents stay: limits, weights and exact duplicates as they come, near
duplicates at the end. What a weight draws out is nobody's duplicate, so that another source's copy of it stays. Memory:
about 100 bytes a document, in arrays and the exact index."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from picochat_contract.data_configs import CleaningConfig, Source

from picochat_trainer.data.building.spool import CleanedBatch
from picochat_trainer.data.cleaning.reasons import Reason
from picochat_trainer.data.dedup.exact import ExactIndex
from picochat_trainer.data.dedup.near import NearIndex

NO_TARGET: Final = -1


class Action(IntEnum):
    KEEP = 0
    DROPPED_BEFORE = 1  # the spool says why
    EXACT_DUPLICATE = 2
    NEAR_DUPLICATE = 3
    WEIGHT = 4
    LIMIT = 5  # the first document over its source's limit
    UNREAD = 6  # behind it: would not have been read had the reader been less far ahead


REASONS: Final[Mapping[Action, Reason]] = {
    Action.EXACT_DUPLICATE: Reason.EXACT_DUPLICATE,
    Action.NEAR_DUPLICATE: Reason.NEAR_DUPLICATE,
    Action.WEIGHT: Reason.WEIGHT,
    Action.LIMIT: Reason.LIMIT,
}


@dataclass(kw_only=True)
class Quota:
    """What a source may still give."""

    num_documents: int | None
    num_characters: int | None
    is_listed: bool = False
    """There was more, and the first document over the limit, if it could be read, is in the list of what was dropped."""

    @property
    def is_used_up(self) -> bool:
        return (self.num_documents is not None and self.num_documents <= 0) or (
            self.num_characters is not None and self.num_characters <= 0
        )

    def take(self, num_characters: int) -> None:
        if self.num_documents is not None:
            self.num_documents -= 1
        if self.num_characters is not None:
            self.num_characters -= num_characters


class Selection:
    """All decisions about the documents of a corpus."""

    def __init__(self, sources: Sequence[Source], config: CleaningConfig, near: NearIndex | None) -> None:
        self._config = config
        self._exact = ExactIndex()
        self._near = near
        self._quotas = {
            index: Quota(num_documents=source.max_documents, num_characters=source.max_characters)
            for index, source in enumerate(sources)
            if source.max_documents is not None or source.max_characters is not None
        }
        self._ends = array("q")  # row behind the last of each batch
        self._actions = array("B")
        self._copies = array("B")
        self._num_bytes = array("q")
        self._repeats = array("B")
        self._targets = array("q")  # row that a duplicate repeats
        self._exact_rows = array("q")  # row of each number in the exact index
        self._near_rows = array("q")
        self.num_compared = 0
        """Documents that passed every filter before deduplication."""
        self.num_exact_duplicates = 0
        """Found, whether removed or not."""
        self.num_lines = 0
        """Of the documents that near deduplication looks at."""

    @property
    def limited(self) -> frozenset[int]:
        """Sources with a limit."""
        return frozenset(self._quotas)

    @property
    def full_sources(self) -> frozenset[int]:
        """Those whose limit was reached with documents left."""
        return frozenset(index for index, quota in self._quotas.items() if quota.is_listed)

    @property
    def num_rows(self) -> int:
        return len(self._actions)

    @property
    def num_near_compared(self) -> int:
        return len(self._near_rows)

    def is_used_up(self, source: int) -> bool:
        return source in self._quotas and self._quotas[source].is_used_up

    def leave_rest(self, source: int) -> None:
        """Note that there was more behind the limit of a source, though no document that could be listed."""
        self._quotas[source].is_listed = True

    def add(self, sources: Sequence[int], batch: CleanedBatch) -> None:
        """Decide on the next batch; `sources` has the source of each row."""
        first_row = len(self._actions)
        fingerprints = iter(batch.fingerprints)
        is_new: list[bool] = []  # of the rows that passed
        for offset, (source, passed, copies, num_characters, num_lines) in enumerate(
            zip(
                sources,
                batch.passed.tolist(),
                batch.copies.tolist(),
                batch.num_characters.tolist(),
                batch.num_lines.tolist(),
                strict=True,
            )
        ):
            num_found = self.num_exact_duplicates
            fingerprint = next(fingerprints) if passed else None
            action, target = self._decide(source, fingerprint, copies > 0, first_row + offset)
            if passed:
                is_new.append(action is Action.KEEP)
            if action is Action.KEEP:
                self.num_lines += num_lines
                if source in self._quotas:
                    self._quotas[source].take(num_characters)
                if self._near is not None:
                    self._near_rows.append(first_row + offset)
            self._actions.append(action)
            self._repeats.append(passed and self.num_exact_duplicates > num_found)
            self._targets.append(target)
        self._copies.frombytes(batch.copies.tobytes())
        self._num_bytes.frombytes(batch.num_bytes.tobytes())
        self._ends.append(len(self._actions))
        if self._near is not None and batch.signatures is not None:
            self._near.add(batch.signatures.take(np.array(is_new, np.bool_)))

    def _decide(
        self, source: int, fingerprint: bytes | None, has_copies: bool, row: int
    ) -> tuple[Action, int]:
        quota = self._quotas.get(source)
        if quota is not None and quota.is_used_up:
            action = Action.UNREAD if quota.is_listed else Action.LIMIT
            quota.is_listed = True
            return action, NO_TARGET
        if fingerprint is None:
            return Action.DROPPED_BEFORE, NO_TARGET
        if not has_copies:
            return Action.WEIGHT, NO_TARGET
        self._exact_rows.append(row)
        self.num_compared += 1
        earlier = self._exact.add(fingerprint)
        if earlier is None:
            return Action.KEEP, NO_TARGET
        self.num_exact_duplicates += 1
        if not self._config.exact_duplicates:
            return Action.KEEP, NO_TARGET
        return Action.EXACT_DUPLICATE, self._exact_rows[earlier]

    def finish(self) -> "Decisions":
        """Remove near duplicates and number what is left. Nothing can be added afterwards."""
        num_rows = len(self._actions)
        del self._exact, self._exact_rows
        # views, not copies: there may be tens of millions of rows
        actions, copies = np.frombuffer(self._actions, np.uint8), np.frombuffer(self._copies, np.uint8)
        targets, num_bytes = np.frombuffer(self._targets, np.int64), np.frombuffer(self._num_bytes, np.int64)
        similarities = np.zeros(num_rows, np.float32)
        num_near = 0
        if self._near is not None:
            for number, (kept, similarity) in self._near.removed().items():
                row = self._near_rows[number]
                actions[row], targets[row] = Action.NEAR_DUPLICATE, self._near_rows[kept]
                similarities[row] = similarity
                num_near += 1
        # what an exact duplicate repeats may itself be the near duplicate of another
        dropped = np.flatnonzero(targets != NO_TARGET)
        while len(chained := dropped[targets[targets[dropped]] != NO_TARGET]):
            targets[chained] = targets[targets[chained]]
        copies[actions != Action.KEEP] = 0
        num_bytes *= copies
        first_document = np.cumsum(copies, dtype=np.int64)
        first_document -= copies
        return Decisions(
            batch_ends=np.frombuffer(self._ends, np.int64),
            actions=actions,
            copies=copies,
            repeats=np.frombuffer(self._repeats, np.bool_),
            targets=targets,
            similarities=similarities,
            duplicates=np.bincount(targets[dropped], minlength=num_rows).astype(np.int32),
            first_document=first_document,
            num_bytes=num_bytes,
            num_near_duplicates=num_near,
        )


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """One entry per row of the spool."""

    batch_ends: NDArray[np.int64]
    """Per batch: the row behind its last."""
    actions: NDArray[np.uint8]
    copies: NDArray[np.uint8]
    """How often the document stands in the corpus; 0 where it is dropped."""
    repeats: NDArray[np.bool_]
    """The text is that of an earlier document, whether that made it drop or not."""
    targets: NDArray[np.int64]
    """Row of the document in whose favour this one is dropped, or -1."""
    similarities: NDArray[np.float32]
    duplicates: NDArray[np.int32]
    """Documents dropped in favour of this one."""
    first_document: NDArray[np.int64]
    """Place in the corpus of the first copy."""
    num_bytes: NDArray[np.int64]
    """In the corpus: all copies, without separators."""
    num_near_duplicates: int
    """Documents removed as near duplicates."""

    @property
    def target_documents(self) -> NDArray[np.int64]:
        """Per row: place in the corpus of the document in whose favour it is dropped, or -1."""
        stands = (self.targets != NO_TARGET) & (self.copies[self.targets] > 0)
        return np.where(stands, self.first_document[self.targets], NO_TARGET)

    @property
    def num_documents(self) -> int:
        return int(self.copies.sum())

    @property
    def batch_bytes(self) -> list[int]:
        """Bytes of each batch that stand in the corpus."""
        sums = np.concatenate(([0], np.cumsum(self.num_bytes)))
        return np.diff(sums[np.concatenate(([0], self.batch_ends))]).tolist()
