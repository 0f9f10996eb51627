from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.inspection import inspect_text

TEXT = "a\u00e9\u6771\U0001f600 b<|im_end|>"


def test_pieces_stand_where_their_bytes_stand(tokenizer: Tokenizer) -> None:
    raw = TEXT.encode()
    pieces = inspect_text(tokenizer, TEXT)
    assert b"".join(piece.raw for piece in pieces) == raw
    for piece in pieces:
        assert raw[piece.byte_start : piece.byte_start + len(piece.raw)] == piece.raw
        # the characters hold all of its bytes, and no character less would
        covering = TEXT[piece.char_start : piece.char_end].encode()
        assert piece.raw in covering and len(TEXT[piece.char_start + 1 : piece.char_end].encode()) < len(
            piece.raw
        )


def test_a_part_of_a_character_shows_as_a_replacement(tokenizer: Tokenizer) -> None:
    split = [piece for piece in inspect_text(tokenizer, "\U0010fffd") if len(piece.raw) < 4]
    assert all("\ufffd" in piece.text and (piece.char_start, piece.char_end) == (0, 1) for piece in split)


def test_special_token_text_has_no_special_id(tokenizer: Tokenizer) -> None:
    assert not tokenizer.special_ids & {piece.id for piece in inspect_text(tokenizer, TEXT)}
