"""Each sampling setting has its effect, and rows never disturb each other.

B rows, V vocab
"""

from collections import Counter
from typing import Any

import pytest
import torch
from picochat_contract.errors import ContractError
from picochat_trainer.inference.sampling import RowSampler, SamplingParams, sample
from torch import Tensor

LOGITS_V = torch.tensor([0.5, 2.0, -1.0, 1.5, 0.0])
ORDER = [1, 3, 0, 4, 2]


def sampler(vocab_size: int = 5, **settings: Any) -> RowSampler:
    return RowSampler(SamplingParams(**settings), vocab_size)


def draws(count: int = 400, **settings: Any) -> Counter[int]:
    row = sampler(**settings)
    return Counter(sample(LOGITS_V.clone()[None], [row])[0] for _ in range(count))


def test_temperature_zero_takes_the_most_likely() -> None:
    assert draws(5, temperature=0.0) == {1: 5}


def test_low_temperature_sharpens() -> None:
    assert draws(temperature=0.2)[1] > draws(temperature=1.0)[1] > draws(temperature=5.0)[1]


def test_plain_sampling_follows_the_probabilities() -> None:
    expected_V = torch.softmax(LOGITS_V, dim=0)
    counts = draws(4000, temperature=1.0)
    for token_id, probability in enumerate(expected_V.tolist()):
        assert counts[token_id] / 4000 == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_keeps_the_k_most_likely(top_k: int) -> None:
    assert set(draws(temperature=3.0, top_k=top_k)) == set(ORDER[:top_k])


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, 1), (0.49, 1), (0.5, 2), (0.95, 4), (0.999, 5)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: int) -> None:
    # probabilities in order: 0.496, 0.301, 0.111, 0.067, 0.025 reach 0.496, 0.797, 0.908, 0.975, 1
    assert set(draws(2000, temperature=1.0, top_p=top_p)) == set(ORDER[:kept])


def test_top_p_counts_only_what_top_k_left() -> None:
    # of the two most likely the first alone has 0.62
    assert set(draws(temperature=1.0, top_k=2, top_p=0.6)) == {1}


def test_repetition_penalty_makes_seen_tokens_less_likely() -> None:
    row = sampler(temperature=0.0, repetition_penalty=2.0)
    row.note([1])
    assert sample(LOGITS_V.clone()[None], [row]) == [3]
    negative_V = torch.tensor([-1.0, -1.5])
    row = sampler(2, temperature=0.0, repetition_penalty=2.0)
    row.note([0])
    assert sample(negative_V[None], [row]) == [1]


def test_a_seed_repeats_and_another_differs() -> None:
    def run(seed: int) -> list[int]:
        row = sampler(temperature=2.0, seed=seed)
        return [sample(LOGITS_V.clone()[None], [row])[0] for _ in range(20)]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_a_row_draws_the_same_alone_and_beside_others() -> None:
    settings: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 1.5, "top_p": 0.7},
        {"temperature": 0.7, "top_k": 4, "top_p": 0.9, "repetition_penalty": 1.3},
    ]
    logits_BV = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))

    def run(rows: list[int]) -> list[list[int]]:
        samplers = [sampler(40, seed=row, **settings[row]) for row in rows]
        for row in samplers:
            row.note([1, 2, 3])
        return [sample(logits_BV[rows].clone(), samplers) for _ in range(30)]

    together: list[list[int]] = run([0, 1, 2, 3, 4])
    for row in range(5):
        assert [step[row] for step in together] == [step[0] for step in run([row])]


def test_only_penalised_rows_change_the_logits() -> None:
    logits_BV: Tensor = LOGITS_V.repeat(2, 1)
    sample(logits_BV, [sampler(temperature=1.0), sampler(temperature=1.0, top_k=2)])
    assert torch.equal(logits_BV, LOGITS_V.repeat(2, 1))


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.0),
        ("seed", 2**63),
        ("stop", ("",)),
    ],
)
def test_impossible_settings_are_refused(param: str, value: Any) -> None:
    with pytest.raises(ContractError, match=f"{param}: expected") as caught:
        SamplingParams(**{param: value})
    assert caught.value.param == param
