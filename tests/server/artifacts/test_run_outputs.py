"""The outputs of a run: lists, and what a stage may link."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_contract.api import ArtifactOut, Page
from picochat_contract.canonical import sha256_hex
from picochat_contract.errors import Code, ContractError
from picochat_contract.manifest import OutputFile
from picochat_contract.stages import StageName
from picochat_server.artifacts.service import artifact_at, link_outputs
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.models import Stage
from picochat_server.problems import ApiProblem
from sqlalchemy import select
from support.finished_run import SFT_WEIGHTS, FinishedRun, approved_files, make_finished_run, output_of


@pytest.fixture
def run(app: FastAPI, project_id: str) -> FinishedRun:
    return make_finished_run(app, project_id, approved_files())


def link(run: FinishedRun, stage: StageName, *outputs: OutputFile, epoch: int = 2) -> None:
    with transaction(run.app.state.sessions) as session:
        row = session.scalars(
            select(Stage).where(Stage.run_id == run.run_id, Stage.name == stage.value)
        ).one()
        link_outputs(session, row, epoch, outputs)


def refused_code(run: FinishedRun, *outputs: OutputFile) -> Code:
    with pytest.raises(ApiProblem) as caught:
        link(run, StageName.REPORT, *outputs)
    assert caught.value.status == 422
    return caught.value.code


def known(run: FinishedRun, path: str, **changes: object) -> OutputFile:
    """An output whose bytes are stored."""
    return output_of(path, run.files[layout.CORPUS]).model_copy(update=changes)


def digest_at(run: FinishedRun, path: str) -> str:
    with transaction(run.app.state.sessions) as session:
        return artifact_at(session, run.project_id, run.run_id, path)[0]


def test_a_run_lists_its_files_by_path(client: TestClient, run: FinishedRun) -> None:
    answer = client.get(f"/api/v1/runs/{run.run_id}/artifacts")
    page = Page[ArtifactOut].model_validate(answer.json())
    assert [file.path for file in page.data] == sorted(run.files)
    weights = next(file for file in page.data if file.path == SFT_WEIGHTS)
    assert (weights.sha256, weights.size_bytes) == (run.digest(SFT_WEIGHTS), len(run.files[SFT_WEIGHTS]))
    assert (weights.stage, weights.kind, page.has_more) == ("sft", "checkpoint", False)


def test_a_list_goes_on_where_it_stopped(client: TestClient, run: FinishedRun) -> None:
    url, found, after = f"/api/v1/runs/{run.run_id}/artifacts", [], None
    while True:
        answer = client.get(url, params={"limit": 4} | ({"after": after} if after else {}))
        page = Page[ArtifactOut].model_validate(answer.json())
        found += [file.path for file in page.data]
        if not page.has_more:
            break
        after = page.next
    assert found == sorted(run.files)


def test_linking_again_replaces_what_an_earlier_epoch_left(run: FinishedRun) -> None:
    link(run, StageName.REPORT, known(run, "summary.md"), known(run, "old.md"))
    link(run, StageName.REPORT, known(run, "summary.md"), epoch=3)
    assert digest_at(run, "summary.md") == run.digest(layout.CORPUS)
    with pytest.raises(ApiProblem):
        digest_at(run, "old.md")


def test_of_two_stages_at_one_path_the_later_counts(client: TestClient, run: FinishedRun) -> None:
    link(run, StageName.REPORT, known(run, layout.CHAT))
    assert digest_at(run, layout.CHAT) == run.digest(layout.CORPUS)
    listed = client.get(f"/api/v1/runs/{run.run_id}/artifacts").json()["data"]
    assert [file["stage"] for file in listed if file["path"] == layout.CHAT] == ["report"]


def test_an_output_that_was_not_uploaded_is_refused(run: FinishedRun) -> None:
    assert refused_code(run, output_of("summary.md", b"never uploaded")) is Code.NOT_FOUND


def test_an_output_of_another_project_is_refused(app: FastAPI, run: FinishedRun) -> None:
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
    secret = {layout.CORPUS: b"another project's corpus"}
    make_finished_run(app, other, secret)
    assert refused_code(run, output_of("stolen.txt", secret[layout.CORPUS])) is Code.NOT_FOUND


def test_an_output_with_another_size_is_refused(run: FinishedRun) -> None:
    assert refused_code(run, known(run, "summary.md", size_bytes=1)) is Code.DIGEST_MISMATCH


def test_an_output_listed_twice_is_refused(run: FinishedRun) -> None:
    assert refused_code(run, known(run, "a.md"), known(run, "a.md")) is Code.INVALID_REQUEST


@pytest.mark.parametrize("path", ["../a.md", "/a.md", "a\\b.md", "a.md\n", ""])
def test_an_output_with_a_bad_path_is_refused(run: FinishedRun, path: str) -> None:
    with pytest.raises(ContractError) as caught:
        link(run, StageName.REPORT, known(run, path))
    assert caught.value.code is Code.BAD_ARTIFACT_PATH


def test_a_refused_manifest_links_nothing(run: FinishedRun) -> None:
    refused_code(run, known(run, "a.md"), output_of("b.md", b"never uploaded"))
    with pytest.raises(ApiProblem) as caught:
        digest_at(run, "a.md")
    assert caught.value.status == 404


def test_digests_are_those_of_the_bytes(run: FinishedRun) -> None:
    assert all(digest_at(run, path) == sha256_hex(content) for path, content in run.files.items())
