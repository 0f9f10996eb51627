import multiprocessing
from pathlib import Path

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_contract.manifest import StageJob
from picochat_contract.stages import StageName
from picochat_worker.errors import BadManifest, WorkDirInUse
from picochat_worker.workspace import Workspace, clean_workspaces, held_work_dir

from .conftest import make_claim


def no_fetch(digest: str, target: Path) -> None:
    raise AssertionError(f"{digest} is fetched to {target}")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, make_claim())


def write_manifest(workspace: Workspace, *outputs: tuple[str, int], stage: str = "base") -> None:
    items = ",".join(
        f'{{"path": "{path}", "sha256": "{"0" * 64}", "size_bytes": {size}, "kind": "data"}}'
        for path, size in outputs
    )
    (workspace.log.parent / "manifest.json").write_text(
        f'{{"stage": "{stage}", "fingerprint": "f", "code_version": "1", "duration_seconds": 1,'
        f' "created_at": "2026-01-01T00:00:00Z", "outputs": [{items}]}}'
    )


def test_each_attempt_has_its_own_folder(tmp_path: Path, workspace: Workspace) -> None:
    assert workspace.root == tmp_path / "attempts" / "run_1" / "base" / "3"


def test_run_id_cannot_lead_out_of_the_work_folder(tmp_path: Path) -> None:
    with pytest.raises(ContractError):
        Workspace(tmp_path, make_claim(run=".."))


def test_source_is_named_by_a_real_digest(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, make_claim(sources=["../../etc/passwd"]))
    with pytest.raises(ContractError) as caught:
        workspace.lay(StageJob(stage=StageName.BASE, config={}), no_fetch)
    assert caught.value.code == Code.BAD_DIGEST


def test_manifest_with_a_wrong_size_is_refused(workspace: Workspace) -> None:
    (workspace.run / "corpus.txt").write_text("12345")
    write_manifest(workspace, ("corpus.txt", 4))
    with pytest.raises(BadManifest, match="5 bytes, its manifest says 4"):
        workspace.manifest()


def test_manifest_that_names_an_absent_file_is_refused(workspace: Workspace) -> None:
    write_manifest(workspace, ("corpus.txt", 4))
    with pytest.raises(BadManifest, match="not in the folder"):
        workspace.manifest()


def test_manifest_of_another_stage_is_refused(workspace: Workspace) -> None:
    write_manifest(workspace, stage="sft")
    with pytest.raises(BadManifest, match="expected base"):
        workspace.manifest()


def test_folder_behind_a_link_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("1234")
    (workspace.run / "eval").symlink_to(outside)
    write_manifest(workspace, ("eval/file", 4))
    with pytest.raises(BadManifest) as caught:
        workspace.manifest()
    assert caught.value.code == Code.BAD_ARTIFACT_PATH


def test_cleaning_removes_attempts_only(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "kept").write_text("not ours")
    clean_workspaces(tmp_path)
    assert not workspace.root.exists()
    assert (tmp_path / "kept").exists()


def _try_to_hold(work_dir: Path, answers: "multiprocessing.Queue[str]") -> None:
    try:
        with held_work_dir(work_dir):
            answers.put("held")
    except WorkDirInUse as error:
        answers.put(str(error))


def test_work_folder_has_one_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with held_work_dir(tmp_path):
        other = context.Process(target=_try_to_hold, args=(tmp_path, answers))
        other.start()
        assert "another worker is using" in answers.get(timeout=30)
        other.join()
    with held_work_dir(tmp_path):  # free again
        pass
