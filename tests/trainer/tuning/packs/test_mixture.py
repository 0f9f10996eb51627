"""Task mixtures: counts per component, tags on every row, disjoint prompts, ready files."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from picochat_contract.errors import ContractError
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.tuning.packs.files import open_pack
from picochat_trainer.tuning.packs.generated import RowOptions, shuffled
from picochat_trainer.tuning.packs.mixture import make_mixture
from picochat_trainer.tuning.packs.profiles import MIXTURES, RowSource, TaskProfile
from picochat_trainer.tuning.packs.verdict import judge_rows
from picochat_trainer.tuning.skills.question import Side

Options = Callable[..., RowOptions]


def test_capability_with_120_and_40_rows_has_86_and_34_and_29_and_11(options: Options) -> None:
    mixture = make_mixture(TaskProfile.CAPABILITY, 120, 40, options())
    for rows, counts in ((mixture.made.chat, (86, 34)), (mixture.made.eval, (29, 11))):
        components = Counter(row.mixture_component for row in rows)
        assert (components["weak_skills"], components["release_behavior"]) == counts
        assert {row.mixture_profile for row in rows} == {"capability"}
        assert all(row.mixture_benchmark_profile == row.mixture_component for row in rows)


def test_balanced_has_three_components_of_which_one_is_the_full_profile(options: Options) -> None:
    made = make_mixture(TaskProfile.BALANCED, 200, 100, options()).made
    assert Counter(row.mixture_component for row in made.eval) == {
        "release_behavior": 25,
        "weak_skills": 45,
        "benchmark": 30,
    }
    profiles = {(row.mixture_component, row.mixture_benchmark_profile) for row in made.chat}
    assert profiles == {
        ("release_behavior", "release_behavior"),
        ("weak_skills", "weak_skills"),
        ("benchmark", "full"),
    }


@pytest.mark.parametrize(("num_sft", "num_eval"), [(64, 24), (1_600, 320)])
@pytest.mark.parametrize("profile", TaskProfile)
def test_prompts_are_disjoint_and_the_files_ready(
    profile: TaskProfile, num_sft: int, num_eval: int, options: Options, pack: Path
) -> None:
    made = make_mixture(profile, num_sft, num_eval, options(style="scratchpad")).made
    assert (len(made.chat), len(made.eval)) == (num_sft, num_eval)
    keys = [normal_form(row.user) for row in (*made.chat, *made.eval)]
    assert len(set(keys)) == num_sft + num_eval
    verdict = judge_rows(
        shuffled(made.chat, 42, Side.SFT), shuffled(made.eval, 42, Side.EVAL), open_pack(pack).texts
    )
    assert (verdict.chat.status, verdict.eval.status, verdict.honesty["status"]) == ("ready",) * 3, (
        verdict.lines
    )


def test_the_shares_of_every_mixture_add_up_to_one() -> None:
    assert set(MIXTURES) == set(TaskProfile)
    assert all(sum(shares.values()) == pytest.approx(1) for shares in MIXTURES.values())


def test_the_hub_serves_only_the_benchmark_component(options: Options, copies: dict[str, str]) -> None:
    made = make_mixture(TaskProfile.BALANCED, 200, 100, options(source=RowSource.HF, copies=copies)).made
    from_hub = {row.mixture_component for row in made.chat if str(row.provenance).startswith("copy of")}
    assert from_hub == {"benchmark"}
    with pytest.raises(ContractError, match="generated rows only"):
        make_mixture(TaskProfile.RELEASE, 64, 24, options(source=RowSource.HF))
