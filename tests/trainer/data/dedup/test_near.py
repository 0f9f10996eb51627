"""Near duplicates with planted pairs: what is found, what survives, and that nothing else changes the answer."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from picochat_trainer.data.dedup import near
from picochat_trainer.data.dedup.near import NearIndex, banding, sign
from picochat_trainer.data.normalize import words

THRESHOLD = 0.8
VOCABULARY = ["".join(random.Random(n).choices("aeioustrnl", k=2 + n % 8)) for n in range(5_000)]


def _text(rng: random.Random, num_words: int) -> str:
    return ". ".join(
        " ".join(rng.choices(VOCABULARY, k=min(20, num_words - at))).capitalize()
        for at in range(0, num_words, 20)
    )


def _one_word_in_200(rng: random.Random, text: str) -> str:
    found = text.split(" ")
    for at in rng.sample(range(len(found)), len(found) // 200):
        found[at] = "edited"
    return " ".join(found)


def _truncated(rng: random.Random, text: str) -> str:
    return text[: int(len(text) * rng.uniform(0.92, 0.99))]


def _in_capitals_without_stops(_: random.Random, text: str) -> str:
    return text.upper().replace(".", " -").replace(" ", "  ")


def _with_a_footer(rng: random.Random, text: str) -> str:
    return f"{text}\n\n{_text(rng, len(text.split()) // 20)}"


def _removed(
    texts: Sequence[str], folder: Path, *, threshold: float = THRESHOLD, batch: int = 64
) -> Mapping[int, tuple[int, float]]:
    with NearIndex(threshold, folder) as index:
        for start in range(0, len(texts), batch):
            index.add(sign(texts[start : start + batch], threshold=threshold))
        return index.removed()


@pytest.mark.parametrize(
    "edit",
    [_one_word_in_200, _truncated, _in_capitals_without_stops, _with_a_footer],
    ids=lambda edit: edit.__name__,
)
def test_edited_copies_are_removed_for_their_originals(
    edit: Callable[[random.Random, str], str], tmp_path: Path
) -> None:
    rng = random.Random(11)
    originals = [_text(rng, rng.randint(200, 900)) for _ in range(150)]
    removed = _removed([*originals, *(edit(rng, text) for text in originals)], tmp_path)
    right = sum(removed.get(150 + number, (-1, 0))[0] == number for number in range(150))
    assert right >= 148  # 0.99 of pairs at the threshold itself; these are above it
    assert all(number >= 150 for number in removed)


def test_documents_that_share_boilerplate_survive(tmp_path: Path) -> None:
    rng = random.Random(12)
    boilerplate = _text(rng, 300)
    texts = [f"{boilerplate}\n{_text(rng, 100)}" for _ in range(400)]  # similarity 0.6
    assert not _removed(texts, tmp_path)


def test_twins_are_found_among_many_that_share_boilerplate(tmp_path: Path) -> None:
    rng = random.Random(20)
    boilerplate = _text(rng, 300)
    texts = [f"{boilerplate}\n{_text(rng, 70)}" for _ in range(600)]  # similarity 0.68
    twins = [_one_word_in_200(rng, text) for text in texts[::10]]
    removed = _removed([*texts, *twins], tmp_path)
    assert {number: kept for number, (kept, _) in removed.items()} == {
        600 + number: 10 * number for number in range(60)
    }


def test_threshold_is_that_of_the_true_similarity(tmp_path: Path) -> None:
    """Twins over the whole range of similarities, against Python sets of the normal form's words."""
    rng = random.Random(13)
    pairs = []
    for number in range(300):
        text = _text(rng, 600)
        keep = 0.6 + 0.4 * number / 300
        pairs += [text, f"{text[: int(len(text) * keep)]} {_text(rng, 5)}"]
    removed = _removed(pairs, tmp_path)
    for number in range(0, 600, 2):
        one, other = (set(_grams(pairs[at])) for at in (number, number + 1))
        true = len(one & other) / len(one | other)
        found = number + 1 in removed
        assert found or true < THRESHOLD + 0.08
        assert not found or true > THRESHOLD - 0.08
        if found:
            assert removed[number + 1] == (number, pytest.approx(true, abs=0.08))


def test_similarity_of_short_documents_is_exact(tmp_path: Path) -> None:
    text = " ".join(VOCABULARY[:104])
    removed = _removed([text, text.replace(VOCABULARY[50], "edited")], tmp_path)
    assert dict(removed) == {1: (0, pytest.approx(95 / 105))}


def test_very_short_documents_are_alike_only_with_equal_words(tmp_path: Path) -> None:
    texts = ["yes", "no", "one two", "two one", "12 + 3", "12 - 3", "", "", "...", "!!!", "Yes!", "One, two."]
    assert dict(_removed(texts, tmp_path)) == {10: (0, 1.0), 11: (2, 1.0)}


def test_text_behind_the_first_thousand_words_counts(tmp_path: Path) -> None:
    rng = random.Random(14)
    start, ends = _text(rng, 1_000), [_text(rng, 2_000) for _ in range(3)]
    texts = [f"{start} {end}" for end in ends] + [f"{_text(rng, 100)} {start} {ends[0]}"]
    assert list(_removed(texts, tmp_path)) == [3]


def test_scripts_without_spaces_are_compared(tmp_path: Path) -> None:
    rng = random.Random(15)
    signs = [chr(code) for code in range(0x4E00, 0x5E00)]
    texts = ["".join(rng.choices(signs, k=400)) + "\u3002" for _ in range(20)]
    copies = [text[:200] + "\uff0c" + text[200:] for text in texts]
    others = [text[:200] + texts[number - 1][200:] for number, text in enumerate(texts)]
    assert {number: kept for number, (kept, _) in _removed(texts + copies + others, tmp_path).items()} == {
        20 + number: number for number in range(20)
    }


def test_a_chain_of_edits_keeps_its_ends(tmp_path: Path) -> None:
    """Each version is like the next; only those like a kept one go."""
    found = _text(random.Random(16), 300).split(" ")
    versions = [" ".join(found[8 * version : 8 * version + 204]) for version in range(8)]
    # 200 shingles each, 192 in common with the next: similarities 0.92, 0.85, 0.79
    removed = _removed(versions, tmp_path)
    assert {number: kept for number, (kept, _) in removed.items()} == {1: 0, 2: 0, 4: 3, 5: 3, 7: 6}
    assert removed[2][1] == pytest.approx(184 / 216)


def test_the_first_of_many_copies_is_kept(tmp_path: Path) -> None:
    text = _text(random.Random(17), 300)
    copies = [text + f" {VOCABULARY[number]}" for number in range(500)]
    assert [kept for kept, _ in _removed(copies, tmp_path).values()] == [0] * 499


def test_every_removal_names_a_kept_earlier_document(tmp_path: Path) -> None:
    removed = _removed(_family(), tmp_path, threshold=0.6)
    assert removed
    for number, (kept, similarity) in removed.items():
        assert kept < number and kept not in removed and similarity >= 0.6


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_batches_change_nothing(batch: int, tmp_path: Path) -> None:
    texts = _family()
    assert dict(_removed(texts, tmp_path, batch=batch)) == dict(_removed(texts, tmp_path))


def test_taken_signatures_are_those_of_the_taken_documents(tmp_path: Path) -> None:
    texts = _family()
    keep = np.array([number % 3 > 0 for number in range(len(texts))])
    with NearIndex(THRESHOLD, tmp_path) as index:
        index.add(sign(texts, threshold=THRESHOLD).take(keep))
        taken = [text for text, kept in zip(texts, keep, strict=True) if kept]
        assert dict(index.removed()) == dict(_removed(taken, tmp_path))


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers: int, tmp_path: Path) -> None:
    texts = _family()
    batches = [texts[start : start + 30] for start in range(0, len(texts), 30)]
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        NearIndex(THRESHOLD, tmp_path) as index,
    ):
        for signatures in pool.map(partial(sign, threshold=THRESHOLD), batches):
            index.add(signatures)
        assert dict(index.removed()) == dict(_removed(texts, tmp_path))


def test_band_keys_sorted_in_parts_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _family()
    whole = dict(_removed(texts, tmp_path))
    monkeypatch.setattr(near, "KEYS_AT_ONCE", 50)
    assert dict(_removed(texts, tmp_path)) == whole


def test_nothing_is_left_in_the_work_folder(tmp_path: Path) -> None:
    with NearIndex(THRESHOLD, tmp_path / "work") as index:
        index.add(sign(["some words in a text"] * 3))
        index.removed()
    assert not list((tmp_path / "work").iterdir())


def test_an_index_without_documents_removes_none(tmp_path: Path) -> None:
    assert not _removed([], tmp_path)
    assert not _removed(["", "?"], tmp_path)


def test_signatures_for_another_threshold_are_refused(tmp_path: Path) -> None:
    with NearIndex(0.8, tmp_path) as index, pytest.raises(ValueError, match=r"threshold 0\.7"):
        index.add(sign(["text"], threshold=0.7))


@pytest.mark.parametrize("threshold", [0.41, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_bands_catch_pairs_at_every_threshold(threshold: float) -> None:
    bands, rows = banding(threshold)
    assert bands * rows <= near.NUM_HASHES
    assert 1 - (1 - threshold**rows) ** bands >= near.CATCH


def test_band_keys_collide_as_often_as_min_wise_hashes_would() -> None:
    """At similarity 0.8 a band of 6 rows is shared with probability 0.26."""
    rng = random.Random(18)
    pairs = []
    for _ in range(300):
        words_of_text = _text(rng, 904).split(" ")
        pairs += [" ".join(words_of_text[:804]), " ".join(words_of_text[100:])]
    one, other = (set(_grams(text)) for text in pairs[:2])
    true = len(one & other) / len(one | other)
    bands = sign(pairs, threshold=THRESHOLD).bands
    shared = (bands[::2] == bands[1::2]).mean()
    assert shared == pytest.approx(true ** banding(THRESHOLD)[1], abs=0.02)


def _family() -> list[str]:
    """Texts of three kinds, short ones and copies of copies among them."""
    rng = random.Random(19)
    texts: list[str] = []
    for _ in range(300):
        if texts and rng.random() < 0.4:
            texts.append(_one_word_in_200(rng, rng.choice(texts)))
        else:
            texts.append(_text(rng, rng.choice([3, 30, 250, 600])))
    return texts


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    found = words(text)
    return (tuple(found[start : start + 5]) for start in range(len(found) - 4))
