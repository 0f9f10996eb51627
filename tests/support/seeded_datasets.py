"""Datasets as the pages meet them: registered rows with stored bytes."""

from fastapi import FastAPI
from picochat_contract.api_data import DatasetIn, DatasetOut
from picochat_server.artifacts import repository as artifact_rows
from picochat_server.auth.principal import Principal
from picochat_server.datasets.service import register
from picochat_server.db import transaction

from support.finished_run import store_bytes


def pushed(
    app: FastAPI, project_id: str, key_id: str, name: str, num_corpus_files: int = 1, **fields: object
) -> DatasetOut:
    """The next version of a pack: corpus files, eval items, an external benchmark, one file left out."""
    contents = {f"part-{number}.txt": f"text {number} of {name}" for number in range(num_corpus_files)}
    files = [{"role": "corpus", "path": path, "content": text} for path, text in contents.items()]
    files.append({"role": "eval", "path": "eval.jsonl", "content": f'{{"prompt": "{name}"}}'})
    files.append({"role": "external", "path": "arc.jsonl", "content": "{}", "label": "arc"})
    state = app.state
    with transaction(state.sessions) as session:
        for file in files:
            content = file.pop("content").encode()
            file["digest"] = store_bytes(state.store, content)
            artifact_rows.record(session, project_id, file["digest"], len(content))
        left_out = [{"type": "left_out", "path": "drafts/old.txt", "reason": "recipe_excluded"}]
        body = DatasetIn.model_validate({"name": name, "files": files, "left_out": left_out, **fields})
        principal = Principal(project_id=project_id, key_id=key_id, scopes=frozenset({"admin"}))
        return register(session, state.store, principal, body)[0]
