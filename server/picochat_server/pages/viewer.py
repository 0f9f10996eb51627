"""Who looks at a page, from the rows of the key and the project."""

from sqlalchemy.orm import Session

from picochat_server.auth.principal import Principal
from picochat_server.pages import repository
from picochat_server.pages.context import Viewer


def viewer_of(session: Session, principal: Principal) -> Viewer:
    key_name, project_name = repository.names_of(session, principal.key_id, principal.project_id)
    return Viewer(
        key_name=key_name,
        project_name=project_name,
        can_write=principal.may("runs:write"),
        can_download=principal.may("artifacts:read"),
    )
