from pathlib import Path

import pytest
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import sample
from picochat_trainer.tokenizer.sample import sample_texts
from support.corpora import write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusStore:
    write_corpus(tmp_path, [f"document {i} " + "x" * 100 for i in range(400)])
    return CorpusStore.at(tmp_path)


def test_a_small_corpus_is_taken_whole(corpus: CorpusStore) -> None:
    taken = sample_texts(corpus, seed=1)
    assert list(taken) == [document.text for document in corpus.documents()]
    assert taken.describe() == "all of the corpus"


def test_a_large_one_is_sampled_from_everywhere_and_alike_each_time(corpus: CorpusStore) -> None:
    taken = sample_texts(corpus, seed=1, max_bytes=corpus.num_bytes // 4)
    texts = list(taken)
    assert list(taken) == texts
    assert sum(map(len, texts)) == pytest.approx(corpus.num_bytes / 4, rel=0.3)
    numbers = [int(text.split()[1]) for text in texts]
    assert min(numbers) < 40 and max(numbers) >= 360
    assert list(sample_texts(corpus, seed=2, max_bytes=corpus.num_bytes // 4)) != texts
    assert taken.describe() == "25.0% of the corpus"


def test_one_long_document_is_sampled_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "PIECE_CHARACTERS", 100)
    write_corpus(tmp_path, ["one line of text\n" * 2000])
    corpus = CorpusStore.at(tmp_path)
    taken = "".join(sample_texts(corpus, seed=1, max_bytes=corpus.num_bytes // 2))
    assert 0.3 < len(taken) / corpus.num_bytes < 0.7
