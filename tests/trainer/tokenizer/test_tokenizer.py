"""Round trips, exact bytes, and the promise that user text never becomes a special token."""

import random
from pathlib import Path

import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.special import SPECIAL_TOKENS
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer


def random_text(rng: random.Random, length: int) -> str:
    """Any code points but surrogates, plus the characters that tokenizers stumble over."""
    awkward = [
        "\n",
        "\r",
        "\t",
        " ",
        "\x00",
        "\u00a0",
        "\u0301",
        "\ufeff",
        "\ufffd",
        "\U0001f9d1",
        "<",
        "|",
        ">",
    ]
    picks = [
        rng.choice(awkward) if rng.random() < 0.3 else chr(rng.randrange(0x110000)) for _ in range(length)
    ]
    return "".join(pick for pick in picks if not 0xD800 <= ord(pick[0]) < 0xE000)


def test_random_unicode_survives_a_round_trip_byte_for_byte(tokenizer: Tokenizer) -> None:
    rng = random.Random(7)
    for length in [0, 1, 2, 5, 40, 300] * 10:
        text = random_text(rng, length)
        ids = tokenizer.encode(text)
        assert tokenizer.decode_bytes(ids) == text.encode()
        assert tokenizer.decode(ids) == text


def test_token_bytes_add_up_to_the_bytes_of_the_text_at_every_cut(tokenizer: Tokenizer) -> None:
    text = "\u00e9\u6771\U0001f600 mixed"
    ids = tokenizer.encode(text)
    for cut in range(len(ids) + 1):
        assert tokenizer.decode_bytes(ids[:cut]) + tokenizer.decode_bytes(ids[cut:]) == text.encode()


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_special_token_text_in_user_data_is_ordinary_text(tokenizer: Tokenizer, special: str) -> None:
    text = f"a{special}b {special} {special}{special}"
    for ids in [tokenizer.encode(text), tokenizer.encode_batch([text])[0]]:
        assert not tokenizer.special_ids & set(ids)
        assert tokenizer.decode(ids) == text


def test_special_tokens_have_the_first_ids_and_no_bytes(tokenizer: Tokenizer) -> None:
    assert [tokenizer.bos_id, tokenizer.im_start_id, tokenizer.im_end_id, tokenizer.pad_id] == [0, 1, 2, 3]
    assert [tokenizer.token_bytes[id] for id in range(4)] == [b""] * 4
    assert tokenizer.decode([1, 2]) == ""
    assert tokenizer.decode([1, 2], skip_special=False) == "<|im_start|><|im_end|>"


def test_every_token_but_the_special_ones_has_bytes(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size
    assert all(tokenizer.token_bytes[4:])


def test_batch_equals_single(tokenizer: Tokenizer) -> None:
    texts = ["one", "", "two\nlines", "<|pad|>"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_training_twice_writes_equal_files(tmp_path: Path) -> None:
    for name in ["first", "second"]:
        trained = train_tokenizer(TokenizerConfig(vocab_size=320), ["aa ab aa ab abc abc"] * 9)
        save_tokenizer(trained, tmp_path / f"{name}.json", tmp_path / f"{name}_config.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    assert Tokenizer.load(tmp_path / "first.json").digest == Tokenizer.load(tmp_path / "second.json").digest


def test_bpe_merges_and_respects_the_vocabulary_size() -> None:
    trained = train_tokenizer(TokenizerConfig(vocab_size=300, min_freq=1), ["the cat sat on the mat " * 50])
    tokenizer = Tokenizer(trained, digest="")
    assert 260 < tokenizer.vocab_size <= 300
    assert len(tokenizer.encode("the cat sat")) < len("the cat sat")


def test_digits_stay_single_tokens() -> None:
    trained = train_tokenizer(TokenizerConfig(vocab_size=400, min_freq=1), ["1234 1234 1234 " * 50])
    assert len(Tokenizer(trained, digest="").encode("1234")) == 4


def test_byte_vocabulary_is_256_bytes_and_the_special_tokens() -> None:
    assert train_tokenizer(TokenizerConfig(type="byte"), []).get_vocab_size() == 260


def test_char_gives_rare_characters_to_the_byte_fallback() -> None:
    tokenizer = Tokenizer(train_tokenizer(TokenizerConfig(type="char", min_freq=2), ["aab"]), digest="")
    assert len(tokenizer.encode("a")) == 1
    assert tokenizer.token_bytes[tokenizer.encode("b")[0]] == b"b"
    assert tokenizer.vocab_size == 4 + 256 + 1


def test_hf_bpe_is_another_name_of_bpe() -> None:
    texts = ["some text some text"] * 4
    plain = train_tokenizer(TokenizerConfig(type="bpe", vocab_size=300), texts)
    alias = train_tokenizer(TokenizerConfig(type="hf_bpe", vocab_size=300), texts)
    assert plain.to_str() == alias.to_str()


def test_load_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no tokenizer at ") as caught:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert caught.value.code is Code.FILE_UNREADABLE


@pytest.mark.parametrize("content", [b"not json", b"{}", b"\xff\xfe"])
def test_load_refuses_a_file_that_is_no_tokenizer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ContractError, match="not a Hugging Face"):
        Tokenizer.load(tmp_path)


def test_load_refuses_a_tokenizer_without_the_special_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    Backend(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ContractError, match="has no token '<|endoftext|>'".replace("|", r"\|")):
        Tokenizer.load(tmp_path)
