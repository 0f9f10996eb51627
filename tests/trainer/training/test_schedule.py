import pytest
from picochat_contract.configs import BaseConfig
from picochat_trainer.training.schedule import learning_rate


def rates(**changes: object) -> list[float]:
    settings = {"learning_rate": 1.0, "warmup_steps": 4, "max_steps": 11, "min_lr_ratio": 0.1, **changes}
    config = BaseConfig(**settings)  # type: ignore[arg-type]
    return [learning_rate(config, step) for step in range(config.max_steps)]


def test_warm_up_is_linear_and_its_first_step_is_not_zero() -> None:
    assert rates()[:4] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_decay_falls_all_the_way_to_the_minimum(decay: str) -> None:
    found = rates(lr_decay=decay)[4:]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.1)


def test_linear_and_cosine_meet_in_the_middle() -> None:
    assert rates(lr_decay="linear")[7] == pytest.approx(0.55)
    assert rates(lr_decay="cosine")[7] == pytest.approx(0.55)


def test_no_decay_stays_at_the_peak() -> None:
    assert set(rates(lr_decay="none")[3:]) == {1.0}


@pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (0, 2), (5, 5), (20, 3)])
def test_odd_lengths_give_rates_within_bounds(warmup: int, steps: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(warmup_steps=warmup, max_steps=steps))
