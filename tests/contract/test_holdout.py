import pytest
from picochat_contract.holdout import MIN_VAL_TOKENS, held_out_fraction


@pytest.mark.parametrize(
    ("val_fraction", "num_tokens", "expected"),
    [
        (0.2, 1_000, 0.2),  # as asked for
        (0.001, 100_000, 0.1),  # a small corpus holds out a tenth
        (0.01, 50_000_000, MIN_VAL_TOKENS / 50_000_000),  # at least so many tokens
        (0.002, 22_000_000_000, 0.002),  # which they are already
        (0.05, 0, 0.1),
    ],
)
def test_enough_is_held_out_where_the_corpus_allows(
    val_fraction: float, num_tokens: int, expected: float
) -> None:
    assert held_out_fraction(val_fraction, num_tokens) == pytest.approx(expected)
