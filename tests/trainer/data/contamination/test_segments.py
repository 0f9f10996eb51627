"""Long documents are cut so that whatever is looked for lies wholly in one piece."""

from itertools import pairwise

from picochat_trainer.data.contamination.segments import cut_blocks
from picochat_trainer.data.normalize import words


def test_a_long_document_is_cut_into_pieces_that_overlap() -> None:
    text = " ".join(f"word{number}" for number in range(2000))
    blocks = list(cut_blocks([("d", text)], 20, block_characters=500))
    pieces = [piece for (piece,) in blocks]
    assert len(pieces) > 20
    for piece, following in pairwise(pieces):
        assert text[piece.start : piece.start + len(piece.text)] == piece.text
        assert len(words(text[following.start : piece.start + len(piece.text)])) >= 20
    assert [piece.cut_right for piece in pieces] == [
        piece.start + len(piece.text) < len(text) for piece in pieces
    ]


def test_pieces_overlap_by_tokens_however_far_apart_these_are() -> None:
    text = ("word" + "-" * 800) * 15
    pieces = [piece for (piece,) in cut_blocks([("d", text)], 10, block_characters=100)]
    assert all(
        len(words(text[after.start : piece.start + len(piece.text)])) >= 10
        for piece, after in pairwise(pieces)
        if piece.cut_right
    )


def test_short_documents_share_a_block() -> None:
    blocks = list(cut_blocks([(str(number), "word " * 10) for number in range(10)], 2, block_characters=160))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    assert [segment.document for block in blocks for segment in block] == list(range(10))
