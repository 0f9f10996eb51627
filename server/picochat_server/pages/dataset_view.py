"""The dataset pages: every version that was pushed, and one version with its files and the runs that read it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import yaml
from picochat_client.datasets import ROW_ROLES, dataset_section
from picochat_contract.api_data import DatasetOut
from picochat_contract.states import RunState
from sqlalchemy.orm import Session

from picochat_server.auth.principal import Principal
from picochat_server.datasets import service as datasets
from picochat_server.pages import repository
from picochat_server.pages.context import Command
from picochat_server.pages.data_context import DatasetPage, DatasetsPage, UsingRun
from picochat_server.pages.viewer import viewer_of

PAGE_SIZE = 50  # datasets
SHOWN_FILES = 500  # of a dataset
RUNS_READ = 200  # newest runs that are looked through for a dataset


def datasets_page(
    session: Session, principal: Principal, server_url: str, name: str | None, after: str | None
) -> DatasetsPage:
    found = datasets.list_datasets(session, principal.project_id, name, after, PAGE_SIZE)
    return DatasetsPage(
        viewer=viewer_of(session, principal),
        datasets=tuple(found.data),
        name=name,
        is_first_page=after is None,
        first_href=_list_address(name, None),
        older_href=_list_address(name, found.next) if found.has_more else None,
        server_url=server_url,
    )


def dataset_page(session: Session, principal: Principal, dataset_id: str) -> DatasetPage:
    dataset = datasets.dataset_by_id(session, principal.project_id, dataset_id)
    newest = repository.newest_runs(session, principal.project_id, RUNS_READ)
    return DatasetPage(
        viewer=viewer_of(session, principal),
        dataset=dataset,
        files=tuple(dataset.files[:SHOWN_FILES]),
        roles=Counter(file.role for file in dataset.files),
        runs=tuple(
            UsingRun(id=run.id, name=run.name, state=RunState(run.state), created_at=run.created_at)
            for run in newest
            if _reads(run.spec, dataset)
        ),
        num_runs_read=len(newest),
        commands=_commands(dataset),
    )


def _list_address(name: str | None, after: str | None) -> str:
    query = {key: value for key, value in (("name", name), ("after", after)) if value}
    return "/datasets?" + urlencode(query) if query else "/datasets"


def _reads(spec: Mapping[str, Any], dataset: DatasetOut) -> bool:
    """True if a stored spec names this version: specs are stored with the versions that they stood for."""
    section = spec.get("dataset")
    if not isinstance(section, Mapping):
        return False
    external = section.get("external")
    references = [*(section.get("sources") or ()), *(section.get(role) for role in ROW_ROLES)]
    references += external.values() if isinstance(external, Mapping) else ()
    wanted = {"type": "dataset", "name": dataset.name, "version": dataset.version}
    return any(isinstance(one, Mapping) and wanted.items() <= one.items() for one in references)


def _commands(dataset: DatasetOut) -> tuple[Command, ...]:
    named = f"{dataset.name}@{dataset.version}"
    section = {"dataset": dataset_section(dataset)}
    return (
        Command(
            purpose="In a run spec", text=yaml.dump(section, Dumper=_NoAliases, sort_keys=False).rstrip()
        ),
        Command(purpose="Build its corpus and read the report", text=f"picochat-client data preview {named}"),
        Command(
            purpose="Compare it with the eval, and judge a run on it",
            text=f"picochat-client data honesty {named}",
        ),
    )


class _NoAliases(yaml.SafeDumper):
    """One reference stands in several places; people read it better written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
