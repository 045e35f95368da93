"""The app as a process: the command line, what it answers to whom, and how it ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app import main

from .serving import Server, app, environment
from .support import ROOT

CANARY = "sk-canary-0123456789"
ENDPOINT = {"name": "other", "base_url": "http://127.0.0.1:9/v1", "key_var": "OTHER_KEY"}


@pytest.fixture
def no_leaks() -> None:
    """The app of this module outlives a test; `serving` sees to its end."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = dict.fromkeys(("OPENAI_API_KEY", "HF_TOKEN", "OTHER_KEY"), CANARY)
    folder = tmp_path_factory.mktemp("app")
    with app(folder, ENDPOINTS=[ENDPOINT], MULTIMODEL_COLUMNS=["echo:any"], **keys) as server:
        yield server


def get(served: Server, path: str, **headers: str) -> httpx.Response:
    return httpx.get(served.url + path, headers=headers, trust_env=False, follow_redirects=True)


# the command line


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert all(option in said.out for option in ("--host", "--port", "--no-browser"))
    assert not said.err


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--prot", "1"])
    assert ended.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_with_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["--no-browser", "--port", port]) == 2
    said = capsys.readouterr()
    assert port in said.err
    assert "--port" in said.err
    assert not said.out


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MULTIMODEL_PORT", "many"),
        ("MULTIMODEL_TEMPERATURE", "9"),
        ("MULTIMODEL_COLUMNS", "echo:any"),
        ("MULTIMODEL_COLUMNS", "[]"),
        ("MULTIMODEL_COLUMNS", '["guide"]'),
        ("ENDPOINTS", '[{"name": "openai", "base_url": "http://127.0.0.1:9/v1"}]'),
        ("ENDPOINTS", '[{"name": "mine", "base_url": "ftp://127.0.0.1"}]'),
        ("ENDPOINTS", "[{]"),
    ],
)
def test_a_bad_setting_is_named_in_a_sentence(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["--no-browser"]) == 2
    said = capsys.readouterr()
    assert variable in said.err
    assert len(said.err.splitlines()) == 1
    assert not said.out


def test_the_command_hands_its_status_to_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "app.py")]
    surroundings = environment(tmp_path, MULTIMODEL_PORT="many")
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("MULTIMODEL_PORT")


# what it answers


def test_the_page_answers_once_the_line_is_printed(served: Server) -> None:
    answer = get(served, "/")
    assert answer.status_code == 200
    assert "MultiModel" in answer.text
    assert served.printed() == f"Running on {served.url}/\n"


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/theme.css", "/nowhere"])
def test_every_answer_carries_the_security_headers(served: Server, path: str) -> None:
    headers = get(served, path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["object-src"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "http" not in policy["img-src"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["evil.com", "evil.com:80", "127.0.0.1.evil.com", "127.0.0.1@evil.com", ""])
def test_a_foreign_host_is_refused(served: Server, host: str) -> None:
    assert get(served, "/", Host=host).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1", "[::1]:7860"])
def test_names_of_this_machine_are_welcome(served: Server, host: str) -> None:
    assert get(served, "/", Host=host).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://127.0.0.1:1", "https://127.0.0.1.evil.com"])
def test_another_page_can_start_nothing(served: Server, origin: str) -> None:
    body = {"data": [], "fn_index": 0, "session_hash": "x"}
    answer = httpx.post(f"{served.url}/gradio_api/queue/join", json=body, headers={"Origin": origin}, trust_env=False)
    assert answer.status_code == 403
    upload = httpx.post(f"{served.url}/gradio_api/upload", files={"files": b"x"}, headers={"Origin": origin})
    assert upload.status_code == 403


def test_the_own_page_can(served: Server) -> None:
    body = {"data": [], "fn_index": 10_000, "session_hash": "x"}
    answer = httpx.post(f"{served.url}/gradio_api/queue/join", json=body, headers={"Origin": served.url})
    assert answer.status_code != 403


def test_another_page_reads_nothing(served: Server) -> None:
    answer = get(served, "/config", Origin="http://evil.com")
    assert answer.headers.get("access-control-allow-origin") not in ("*", "http://evil.com")


def test_a_foreign_websocket_is_refused(served: Server) -> None:
    where = urlsplit(served.url)
    head = (
        f"GET /gradio_api/ws HTTP/1.1\r\nHost: {where.netloc}\r\nOrigin: http://evil.com\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(64).split()[1] in (b"403", b"404")  # 404: installed without support for them


def test_nothing_private_is_told(served: Server) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/openapi.json", "/nowhere"):
        text = get(served, path).text
        assert CANARY not in text, path
        assert str(Path(served.log).parent) not in text, path
    assert CANARY not in served.printed()


def test_files_of_the_machine_cannot_be_fetched(served: Server) -> None:
    private = served.log.parent / ".env"
    private.write_text(f"OPENAI_API_KEY={CANARY}")
    for name in (private, ROOT / "app.py", "/etc/passwd", "../.env"):
        answer = get(served, f"/gradio_api/file={name}")
        assert answer.status_code in (403, 404), name
        assert CANARY not in answer.text


def test_no_event_is_for_programs(served: Server) -> None:
    """The page's events are not listed as an interface, and called by hand they tell nothing of the inside."""
    info = get(served, "/gradio_api/info").json()
    assert not info["named_endpoints"]
    assert not info["unnamed_endpoints"]
    names = {entry["api_name"] for entry in get(served, "/config").json()["dependencies"] if entry["api_name"]}
    assert names
    for name in names:
        answer = httpx.post(f"{served.url}/gradio_api/run/{name}", json={"data": []}, trust_env=False, timeout=60)
        assert "Traceback" not in answer.text
        assert ".py" not in answer.text


def test_the_page_asks_nothing_of_the_internet(served: Server) -> None:
    """What the page loads by itself; the words of its text may name the Hub."""
    config = json.dumps(get(served, "/config").json())
    assert "fonts.googleapis" not in config
    page = get(served, "/").text
    loads = [part for part in ('src="http', "src='http", 'rel="stylesheet" href="http', "@import") if part in page]
    assert not loads
