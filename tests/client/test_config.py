import json
from pathlib import Path

import pytest
from picochat_client._config import DEFAULT_URL, load_settings
from picochat_contract.errors import Code, ContractError

OTHER = "https://factory.example:8443"


def write_client_file(folder: Path, **content: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "client.json").write_text(json.dumps(content))


def test_defaults_to_the_embedded_server_without_a_key() -> None:
    settings = load_settings(environ={})
    assert (settings.url, settings.api_key) == (DEFAULT_URL, None)


def test_explicit_values_win_over_environment_and_file(tmp_path: Path) -> None:
    write_client_file(tmp_path / ".picochat", url="http://127.0.0.1:1", api_key="from-file")
    env = {"PICOCHAT_URL": "http://127.0.0.1:2", "PICOCHAT_API_KEY": "from-env"}
    assert load_settings(OTHER, "given", environ=env).url == OTHER
    assert load_settings(OTHER, "given", environ=env).api_key == "given"
    assert load_settings(environ=env).api_key == "from-env"
    assert load_settings(environ=env).url == "http://127.0.0.1:2"


def test_reads_the_file_of_an_embedded_server(tmp_path: Path) -> None:
    write_client_file(tmp_path / "home", url="http://127.0.0.1:9/", api_key="from-file")
    settings = load_settings(environ={"PICOCHAT_HOME": str(tmp_path / "home")})
    assert (settings.url, settings.api_key) == ("http://127.0.0.1:9", "from-file")


@pytest.mark.parametrize("environ", [{}, {"PICOCHAT_URL": OTHER}])
def test_never_sends_the_files_key_to_another_server(tmp_path: Path, environ: dict[str, str]) -> None:
    write_client_file(tmp_path / ".picochat", url="http://127.0.0.1:9", api_key="from-file")
    settings = load_settings(None if environ else OTHER, environ=environ)
    assert (settings.url, settings.api_key) == (OTHER, None)


@pytest.mark.parametrize(
    "url",
    ["factory", "ftp://x", "http://", "http://user:pw@x", "http://x?key=1", "http://x:99999", "http://[::1"],
)
def test_refuses_an_address_that_no_server_can_have(url: str) -> None:
    with pytest.raises(ContractError, match="expected http"):
        load_settings(url, environ={})


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "sch\u00f6n"])
def test_refuses_a_mangled_key_without_showing_it(key: str) -> None:
    with pytest.raises(ContractError) as caught:
        load_settings(None, key, environ={})
    assert caught.value.code is Code.UNAUTHENTICATED
    assert key not in caught.value.message


def test_takes_a_line_break_off_the_end_of_a_key() -> None:
    assert load_settings(None, " pk_1\n", environ={}).api_key == "pk_1"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_says_which_client_file_is_broken(tmp_path: Path, text: str) -> None:
    write_client_file(tmp_path / ".picochat")
    (tmp_path / ".picochat" / "client.json").write_text(text)
    with pytest.raises(ContractError, match=r"client\.json should hold") as caught:
        load_settings(environ={})
    assert caught.value.code is Code.FILE_UNREADABLE
