"""The server judges preflight again: what blocks a run, and that nothing behind it can be claimed before."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_contract.stages import STAGES, StageName
from picochat_server.db import transaction
from picochat_server.models import Event
from sqlalchemy import select
from support.hand import SMOKE, UNGATED, Hand, problem, show, states, submit
from support.measured import leaky_facts, preflight_json, sound_facts

AFTER = [name.value for name in StageName][3:]
Facts = Callable[[dict[str, str]], dict[str, Any]]


def at_preflight(client: TestClient, worker: TestClient, spec: dict[str, Any] = SMOKE) -> tuple[str, Hand]:
    run = submit(client, spec)
    return run["id"], Hand(worker).run_until("preflight")


def say(hand: Hand, facts: dict[str, Any] | None = None, **changes: Any) -> None:
    """End the preflight stage with these facts; `changes` are of the file itself."""
    job = hand.claim["job"]
    content = json.loads(preflight_json(job["config"], facts or sound_facts(job["inputs"]))) | changes
    assert hand.succeed({layout.PREFLIGHT: json.dumps(content).encode()}).status_code == 204


def leaky(hand: Hand) -> dict[str, Any]:
    return leaky_facts(hand.claim["job"]["inputs"])


def preflight_of(client: TestClient, run: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/v1/runs/{run}/preflight").raise_for_status().json()
    return found


def blocked_by(client: TestClient, run: str) -> list[str]:
    """The messages of what blocks."""
    shown = show(client, run)
    assert (shown["state"], shown["verdict"]) == ("blocked", "blocked")
    checks = preflight_of(client, run)["report"]["checks"]
    return [check["message"] for check in checks if check["status"] == "block"]


def test_sound_facts_let_the_run_go_on(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker)
    say(hand)
    assert states(show(client, run))["tokenizer"] == "queued"
    found = preflight_of(client, run)
    assert (found["run"], found["report"]["status"], found["advice_status"]) == (run, "warn", "warn")


def test_a_leaky_eval_blocks_the_run_with_the_findings_and_the_fix(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    run, hand = at_preflight(client, worker)
    say(hand, leaky(hand))
    shown = show(client, run)
    assert (shown["state"], shown["verdict"], shown["current_stage"]) == ("blocked", "blocked", "preflight")
    assert "honesty: 3 eval prompts among SFT rows" in shown["message"]
    assert "fix: remove the leaked rows" in shown["message"]
    assert states(shown)["preflight"] == "succeeded", "it could measure"
    assert [states(shown)[name] for name in AFTER] == ["skipped"] * len(AFTER)
    assert shown["stages"][3]["message"] == "preflight blocked the run: honesty"
    assert Hand(worker).ask().status_code == 204
    with transaction(app.state.sessions) as session:
        event = session.scalars(select(Event).where(Event.run_id == run, Event.type == "gate")).one()
        assert (event.stage, event.data) == ("preflight", {"verdict": "blocked", "blocking": ["honesty"]})
        last = session.scalars(
            select(Event).where(Event.run_id == run).order_by(Event.seq.desc()).limit(1)
        ).one()
        assert (last.data["kind"], last.data["to"]) == ("run", "blocked")


def test_who_asks_for_the_gate_or_a_release_of_a_blocked_run_is_told(
    client: TestClient, worker: TestClient
) -> None:
    run, hand = at_preflight(client, worker)
    say(hand, leaky(hand))
    found = problem(client.get(f"/api/v1/runs/{run}/gate"), 404, "gate_not_ready")
    assert f"/api/v1/runs/{run}/preflight" in found["detail"]
    asked = client.post("/api/v1/releases", json={"name": "mine", "run": run})
    assert "preflight blocked" in problem(asked, 409, "gate_not_passed")["detail"]


def test_what_the_stage_says_of_itself_does_not_count(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker)
    say(hand, leaky(hand), status="ready", checks=[])
    found = preflight_of(client, run)
    assert (found["report"]["status"], found["advice_status"]) == ("blocked", "ready")
    assert blocked_by(client, run)


def test_a_waived_check_lets_the_run_go_on(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker, {**SMOKE, "preflight": {"allow_leaky_eval": True}})
    say(hand, leaky(hand))
    assert states(show(client, run))["tokenizer"] == "queued"
    checks = {check["id"]: check for check in preflight_of(client, run)["report"]["checks"]}
    assert (checks["honesty"]["status"], checks["honesty"]["waived_by"]) == (
        "block",
        "preflight.allow_leaky_eval",
    )


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"{}", b'{"facts": {"corpus": 1}}', b"[" * 50_000, b"\xff"]
)
def test_an_unreadable_file_blocks(client: TestClient, worker: TestClient, content: bytes) -> None:
    run, hand = at_preflight(client, worker)
    assert hand.succeed({layout.PREFLIGHT: content}).status_code == 204
    (message,) = blocked_by(client, run)
    assert message.startswith("preflight.json")
    assert preflight_of(client, run)["advice_status"] is None


def test_a_missing_file_blocks(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker)
    assert hand.finish(manifest=hand.manifest({})).status_code == 204
    assert blocked_by(client, run) == ["the run has no preflight.json"]
    assert preflight_of(client, run)["sha256"] is None


def test_a_file_that_changed_in_the_store_blocks(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    run, hand = at_preflight(client, worker)
    files = hand.outputs()
    manifest = hand.manifest(files)
    for content in files.values():
        hand.upload(content)
    stored = app.state.store.path(manifest["outputs"][0]["sha256"])
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes().replace(b'"status":"warn"', b'"status":"worn"'))
    assert hand.finish(manifest=manifest).status_code == 204
    (message,) = blocked_by(client, run)
    assert "the stored bytes of preflight.json changed" in message


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("corpus", layout.CORPUS_MANIFEST),
        ("chat", layout.CHAT),
        ("eval", layout.EVAL),
        ("honesty", layout.HONESTY),
    ],
)
def test_facts_about_another_file_block(client: TestClient, worker: TestClient, part: str, path: str) -> None:
    run, hand = at_preflight(client, worker)
    facts = sound_facts(hand.claim["job"]["inputs"])
    facts[part]["sha256"] = "f" * 64
    say(hand, facts)
    assert any(path in message and "f" * 12 in message for message in blocked_by(client, run))


@pytest.mark.parametrize("part", ["chat", "eval", "honesty"])
def test_facts_that_leave_a_file_out_block(client: TestClient, worker: TestClient, part: str) -> None:
    run, hand = at_preflight(client, worker)
    facts = sound_facts(hand.claim["job"]["inputs"])
    del facts[part]
    say(hand, facts)
    assert any("with sha256 none" in message for message in blocked_by(client, run))


@pytest.mark.parametrize("name", ["corpus_sha256", "chat_sha256", "eval_sha256"])
def test_an_honesty_report_about_other_data_blocks(client: TestClient, worker: TestClient, name: str) -> None:
    run, hand = at_preflight(client, worker)
    facts = sound_facts(hand.claim["job"]["inputs"])
    facts["honesty"][name] = "f" * 64
    say(hand, facts)
    assert any("has an honesty report about" in message for message in blocked_by(client, run))


def test_preference_rows_that_were_not_measured_block(client: TestClient, worker: TestClient) -> None:
    run = submit(client, SMOKE)["id"]
    hand = Hand(worker).take()
    hand.succeed({layout.PREFERENCES: b"pairs"})
    hand.run_until("preflight")
    say(hand)
    assert any(layout.PREFERENCES in message for message in blocked_by(client, run))


@pytest.mark.parametrize("part", [[], ["external_sha256"], ["honesty"]])
def test_benchmarks_that_were_not_measured_or_compared_block(
    client: TestClient, worker: TestClient, part: list[str]
) -> None:
    """`part` is what is true of the two things that have to be."""
    run = submit(client, SMOKE)["id"]
    hand = Hand(worker).take()
    hand.succeed(hand.outputs() | {"external/arc.jsonl": b"items"})
    hand.run_until("preflight")
    inputs = hand.claim["job"]["inputs"]
    facts, digests = sound_facts(inputs), {"arc": inputs["external/arc.jsonl"]}
    facts |= {"external": {"arc": 60}, "external_sha256": digests if "external_sha256" in part else {}}
    facts["honesty"] |= {"external_sha256": digests} if "honesty" in part else {}
    say(hand, facts)
    assert any("external/arc.jsonl" in message for message in blocked_by(client, run))


def test_a_reused_preflight_blocks_again_at_submit(client: TestClient, worker: TestClient) -> None:
    first, hand = at_preflight(client, worker)
    say(hand, leaky(hand))
    second = submit(client, SMOKE)
    assert (second["state"], second["verdict"]) == ("blocked", "blocked")
    assert states(second) == states(show(client, first)) | dict.fromkeys(
        ("dataset", "honesty", "preflight"), "cached"
    )
    assert blocked_by(client, second["id"]) == blocked_by(client, first)


FULL_DISK = {"machine": {"cpu_count": 8, "ram_bytes": 1 << 40, "free_disk_bytes": 1}}


def test_a_preflight_that_its_machine_blocked_is_measured_anew(
    client: TestClient, worker: TestClient
) -> None:
    first, hand = at_preflight(client, worker)
    say(hand, sound_facts(hand.claim["job"]["inputs"]) | FULL_DISK)
    assert any("are free" in message for message in blocked_by(client, first))
    second = submit(client, SMOKE)
    assert states(second)["preflight"] == "queued"
    say(hand.take())
    assert states(show(client, second))["tokenizer"] == "queued"
    third = submit(client, SMOKE)
    assert (states(third)["preflight"], states(third)["tokenizer"]) == ("cached", "queued")


def test_a_preflight_that_could_not_be_judged_is_measured_anew(
    client: TestClient, worker: TestClient
) -> None:
    first, hand = at_preflight(client, worker)
    hand.succeed({layout.PREFLIGHT: b"{"})
    assert blocked_by(client, first)
    assert states(submit(client, SMOKE))["preflight"] == "queued"


def test_a_preflight_of_a_cancelled_run_is_measured_anew(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker)
    client.post(f"/api/v1/runs/{run}/cancel")
    say(hand)
    assert states(submit(client, SMOKE))["preflight"] == "queued"


def test_a_run_that_ends_with_preflight_is_blocked_too(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker, {**SMOKE, "until": "preflight"})
    say(hand, leaky(hand))
    assert blocked_by(client, run)


def test_a_sound_run_that_ends_with_preflight_succeeds(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker, {**SMOKE, "until": "preflight"})
    say(hand)
    shown = show(client, run)
    assert (shown["state"], shown["verdict"]) == ("succeeded", None)


def test_what_ends_with_preflight_judges_the_whole_plan_and_is_reused_by_the_real_run(
    client: TestClient, worker: TestClient
) -> None:
    _, hand = at_preflight(client, worker, {**SMOKE, "until": "preflight"})
    assert hand.claim["job"]["config"]["plan"]["stages"] == [name.value for name in StageName]
    say(hand)
    found = states(submit(client, SMOKE))
    assert [found[name] for name in ("dataset", "honesty", "preflight")] == ["cached"] * 3
    assert found["tokenizer"] == "queued"


def test_a_cancelled_run_stays_cancelled_whatever_preflight_found(
    client: TestClient, worker: TestClient
) -> None:
    run, hand = at_preflight(client, worker)
    client.post(f"/api/v1/runs/{run}/cancel")
    say(hand, leaky(hand))
    shown = show(client, run)
    assert (shown["state"], shown["verdict"]) == ("cancelled", None)
    problem(client.get(f"/api/v1/runs/{run}/preflight"), 404, "preflight_not_ready")


@pytest.mark.parametrize(("facts", "state"), [(leaky, "blocked"), (None, "succeeded")])
def test_a_cancel_that_comes_too_late_to_stop_anything_hides_no_report(
    client: TestClient, worker: TestClient, facts: Callable[[Hand], dict[str, Any]] | None, state: str
) -> None:
    run, hand = at_preflight(client, worker, {**SMOKE, "until": "preflight"})
    client.post(f"/api/v1/runs/{run}/cancel")
    say(hand, facts(hand) if facts else None)
    assert show(client, run)["state"] == state
    assert preflight_of(client, run)["report"]["status"] == ("blocked" if facts else "warn")


def test_a_blocked_run_cannot_be_cancelled(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker)
    say(hand, leaky(hand))
    problem(client.post(f"/api/v1/runs/{run}/cancel"), 409, "illegal_transition")


def test_a_failed_preflight_fails_the_run(client: TestClient, worker: TestClient) -> None:
    run, hand = at_preflight(client, worker)
    hand.finish("failed", 1)
    assert show(client, run)["state"] == "failed"


def test_only_dataset_and_honesty_can_run_before_preflight() -> None:
    def waits_for(name: StageName) -> set[StageName]:
        needs = set(STAGES[name].needs)
        return needs.union(*(waits_for(need) for need in needs))

    free = {name for name in StageName if StageName.PREFLIGHT not in waits_for(name)}
    assert free == {StageName.DATASET, StageName.HONESTY, StageName.PREFLIGHT}
    assert not any(STAGES[name].uses_torch for name in free)


def test_a_run_without_preflight_ends_before_anything_is_trained(
    client: TestClient, worker: TestClient
) -> None:
    run = submit(client, {**UNGATED, "until": "honesty"})
    Hand(worker).run_all()
    assert show(client, run)["state"] == "succeeded"
    problem(client.get(f"/api/v1/runs/{run['id']}/preflight"), 404, "preflight_not_ready")
