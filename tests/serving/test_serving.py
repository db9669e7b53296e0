"""The server: what `predict` says, under load, and nothing to be had from it by hostile requests, names or pages."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import draw_image, noise_files
from PIL import Image
from starlette.datastructures import Headers
from tiny import make_model

from automl_pt.core.errors import InstallationError, OutputError
from automl_pt.model.load import Model, load_model
from automl_pt.model.predict import predict_files
from automl_pt.plugins.manager import Plugins
from automl_pt.serving import require_packages
from automl_pt.serving.guard import known_as, refusal
from automl_pt.serving.limits import Limits
from automl_pt.serving.server import bound, run

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    '"><svg/onload=alert(1)>',
    "\u202egnp.exe",
    "a\nb\x1b[2J",
    "😀" * 30,
    "x" * 300,
    "\udcff",
)
LIMITS = Limits(bytes=200_000, pixels=10_000, seconds=1.0)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def serving(model: Model, limits: Limits = LIMITS, *names: str) -> Iterator[int]:
    """Serve in a thread of this process; yield the port."""
    stop = threading.Event()
    with bound("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        hosts = known_as("127.0.0.1", names)
        thread = threading.Thread(
            target=run, args=(model, listener, limits), kwargs={"hosts": hosts, "should_stop": stop.is_set}
        )
        thread.start()
        try:
            yield port
        finally:
            stop.set()
            thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Model:
    return load_model(make_model(tmp_path_factory.mktemp("model"), plugins), device="cpu", plugins=plugins)


@pytest.fixture(scope="module")
def port(model: Model) -> Iterator[int]:
    with serving(model) as port:
        yield port


def ask(port: int, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def form(content: bytes, name: str = "x.png", field: str = "image") -> tuple[bytes, str]:
    quoted = name.replace('"', "%22").replace("\n", "%0A").replace("\r", "%0D").encode("utf-8", "surrogateescape")
    disposition = b'content-disposition: form-data; name="' + field.encode() + b'"; filename="' + quoted + b'"'
    return b"--B\r\n" + disposition + b"\r\n\r\n" + content + b"\r\n--B--\r\n", "multipart/form-data; boundary=B"


def png(side: int = 16, label: int = 0) -> bytes:
    stream = io.BytesIO()
    draw_image(label, 0, side).save(stream, "PNG")
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a PNG file whose header promises so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 4) + b"IDAT" + b"xxxx" + bytes(4)


def test_an_answer_is_what_predict_says_of_the_file_however_it_is_sent(tmp_path: Path, port: int, model: Model) -> None:
    (path,) = noise_files(tmp_path / "x", 1)
    (wanted,) = predict_files(model, [path])
    assert wanted.probabilities is not None
    content = path.read_bytes()
    body, kind = form(content, path.name)
    coded = json.dumps({"image": base64.b64encode(content).decode(), "name": path.name})
    answers = [
        ask(port, "/predict", body, content_type=kind).json,
        ask(port, "/predict", coded, content_type="application/json; charset=utf-8").json,
        {**ask(port, "/predict", content, content_type="image/png").json, "path": path.name},
        {**ask(port, "/predict", content, content_type="application/octet-stream").json, "path": path.name},
    ]
    assert all(answer == answers[0] for answer in answers)
    assert np.array_equal(np.float32(list(answers[0]["probabilities"].values())), wanted.probabilities)
    assert (answers[0]["path"], answers[0]["error"]) == (path.name, None)
    assert answers[0]["class"] == model.classes[int(wanted.probabilities.argmax())]
    top = ask(port, "/predict?top=2", content, content_type="image/png").json
    assert [entry["class"] for entry in top["top"]][0] == answers[0]["class"]
    assert len(top["top"]) == 2
    assert len(ask(port, "/predict?top=99", content, content_type="image/png").json["top"]) == 3


def test_the_server_tells_what_it_serves(port: int, model: Model) -> None:
    told = ask(port, "/model").json
    assert told["classes"] == list(model.classes)
    assert (told["backbone"], told["image_size"], told["temperature"]) == ("tiny", 8, 1.0)
    assert told["limits"] == {"bytes": LIMITS.bytes, "pixels": LIMITS.pixels}
    assert ask(port, "/health").json["status"] == "ok"


REFUSED: dict[str, tuple[Callable[[], tuple[str, Any, dict[str, str]]], int, str]] = {
    "not an image": (lambda: ("/predict", b"hello", {"content_type": "image/png"}), 422, "not a JPEG, PNG"),
    "empty": (lambda: ("/predict", b"", {"content_type": "image/png"}), 422, "the file is empty"),
    "cut off": (lambda: ("/predict", png()[:-40], {"content_type": "image/png"}), 422, ""),
    "bomb": (lambda: ("/predict", bomb(60_000, 60_000), {"content_type": "image/png"}), 413, "more"),
    "many pixels": (lambda: ("/predict", bomb(101, 100), {"content_type": "image/png"}), 413, "limit of 10,000"),
    "no type": (lambda: ("/predict", b"x", {}), 415, "of no type"),
    "text": (lambda: ("/predict", b"x", {"content_type": "text/plain"}), 415, "text/plain; accepted are multipart"),
    "no json": (lambda: ("/predict", b"{", {"content_type": "application/json"}), 400, "the body is not JSON such as"),
    "deep json": (lambda: ("/predict", b"[" * 99_999, {"content_type": "application/json"}), 400, "not JSON"),
    "json list": (lambda: ("/predict", b"[1]", {"content_type": "application/json"}), 400, "not JSON such as"),
    "no text": (lambda: ("/predict", b'{"image": 1}', {"content_type": "application/json"}), 400, "not JSON such as"),
    "no base64": (lambda: ("/predict", b'{"image": "%%%"}', {"content_type": "application/json"}), 400, "not base64"),
    "no boundary": (lambda: ("/predict", b"x", {"content_type": "multipart/form-data"}), 400, "boundary"),
    "no file": (
        lambda: (
            "/predict",
            b'--B\r\ncontent-disposition: form-data; name="a"\r\n\r\nx\r\n--B--\r\n',
            {"content_type": "multipart/form-data; boundary=B"},
        ),
        400,
        "the form has no file",
    ),
    "two files": (
        lambda: (
            "/predict",
            form(b"x")[0].removesuffix(b"--B--\r\n") + form(b"y")[0],
            {"content_type": form(b"")[1]},
        ),
        400,
        "Too many files",
    ),
    "top": (lambda: ("/predict?top=-1", png(), {"content_type": "image/png"}), 400, "`top` must be a number"),
    "large": (lambda: ("/predict", bytes(200_001), {"content_type": "image/png"}), 413, "limit of 200,000 bytes"),
    "large form": (
        lambda: ("/predict", form(bytes(250_000))[0], {"content_type": form(b"")[1]}),
        413,
        "limit of 200,000 bytes",
    ),
    "wrong method": (lambda: ("/predict", None, {}), 405, "Method Not Allowed"),
    "wrong path": (lambda: ("/../etc/passwd", None, {}), 404, "Not Found"),
    "wrong host": (lambda: ("/model", None, {"host": "evil.example"}), 421, "the Host header names another server"),
    "rebound host": (
        lambda: ("/model", None, {"host": "evil.example:8000"}),
        421,
        "the Host header names another server",
    ),
    "other origin": (lambda: ("/predict", b"x", {"origin": "https://evil.example"}), 403, "another origin"),
    "no origin": (lambda: ("/predict", b"x", {"origin": "null"}), 403, "another origin"),
    "other site": (lambda: ("/model", None, {"sec_fetch_site": "cross-site"}), 403, "another site"),
    "same site": (lambda: ("/model", None, {"sec_fetch_site": "same-site"}), 403, "another site"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_is_refused_says_why(port: int, name: str) -> None:
    make, status, reason = REFUSED[name]
    path, body, headers = make()
    answer = ask(port, path, body, **headers)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert reason in answer.json["error"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_body_that_hides_its_length_is_refused_while_it_comes(port: int) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 1
            yield bytes(100_000)

    answer = ask(port, "/predict", endless(), content_type="image/png")
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert "limit of 200,000 bytes" in answer.json["error"]


def test_a_body_that_never_arrives_is_given_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(
            b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\ncontent-length: 9\r\n\r\nx"
        )
        assert b"408" in peer.recv(65_536).splitlines()[0]


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n"], ids=["nothing", "half"])
def test_a_connection_without_a_request_is_given_up(model: Model, sent: bytes) -> None:
    with serving(model, replace(LIMITS, connections=1, seconds=0.5)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
            peer.sendall(sent)
            assert peer.recv(65_536) == b""
        assert ask(port, "/health").status == 200


def test_a_head_may_not_come_byte_by_byte_for_ever(model: Model) -> None:
    def drip(peer: socket.socket) -> None:
        for letter in b"GET /health HTTP/1.1\r\nx: " + b"y" * 500:
            peer.sendall(bytes([letter]))
            time.sleep(0.02)

    with (
        serving(model, replace(LIMITS, seconds=0.5)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as peer,
        pytest.raises(ConnectionError),
    ):
        drip(peer)


def test_a_connection_that_is_kept_may_ask_again(model: Model) -> None:
    with serving(model, replace(LIMITS, seconds=0.5)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(3):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            time.sleep(0.4)
        connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:80"}, None),
        ({"host": "LOCALHOST"}, None),
        ({"host": "[::1]:80"}, None),
        ({"host": "127.0.0.1", "origin": "http://127.0.0.1"}, None),
        ({"host": "127.0.0.1:1", "origin": "http://127.0.0.1:2"}, 403),
        ({}, 421),
        ({"host": ""}, 421),
        ({"host": "127.0.0.1@evil.example"}, 421),
        ({"host": "evil.example@127.0.0.1"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "[::1"}, 421),
        ({"host": "127.0.0.1:x"}, 421),
        ({"host": "127.0.0.1", "sec-fetch-site": "same-origin"}, None),
        ({"host": "127.0.0.1", "sec-fetch-site": "none"}, None),
        ({"host": "127.0.0.1", "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"host": "127.0.0.1", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
        ({"host": "127.0.0.1", "sec-fetch-site": "cross-site"}, 403),
        # a link in another page that somebody follows, and a form in it
        ({"host": "127.0.0.1", "sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, None),
        (
            {"host": "127.0.0.1", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "origin": "http://x.y"},
            403,
        ),
    ],
)
def test_only_its_own_names_reach_the_server(headers: dict[str, str], status: int | None) -> None:
    found = refusal(Headers(headers), known_as("127.0.0.1", ()))
    assert (found and found[0]) == status


def test_two_host_headers_are_none() -> None:
    found = refusal(Headers(raw=[(b"host", b"127.0.0.1"), (b"host", b"localhost")]), known_as("127.0.0.1", ()))
    assert found is not None
    assert found[0] == 421


@pytest.mark.parametrize(
    ("host", "names", "known"),
    [
        ("127.0.0.1", (), ("localhost", "127.0.0.1", "::1")),
        ("0.0.0.0", ("box",), ("localhost", "127.0.0.1", "::1", "box")),
        ("10.0.0.7", (), ("10.0.0.7",)),
    ],
)
def test_a_server_goes_by_the_names_it_is_given(host: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    assert known_as(host, names) == known


def test_a_further_name_is_given_by_hand(model: Model) -> None:
    with serving(model, LIMITS, "Box.example") as port:
        assert ask(port, "/health", host="box.example:81").status == 200


def test_hostile_names_come_back_as_text(tmp_path: Path, plugins: Plugins) -> None:
    directory = make_model(tmp_path / "m", plugins, classes=HOSTILE)
    with serving(load_model(directory, device="cpu", plugins=plugins)) as port:
        assert ask(port, "/model").json["classes"] == list(HOSTILE)
        for name in HOSTILE[:-1]:
            body, kind = form(png(), name)
            answer = ask(port, "/predict", body, content_type=kind)
            assert answer.body.isascii()
            assert set(answer.json["probabilities"]) == set(HOSTILE)
        coded = json.dumps({"image": base64.b64encode(b"x").decode(), "name": "\x1b[2J"})
        assert ask(port, "/predict", coded, content_type="application/json").status == 422


def test_requests_at_once_share_forward_passes_and_keep_their_answers(tmp_path: Path, model: Model) -> None:
    paths = noise_files(tmp_path / "x", 30)
    wanted = [prediction.probabilities for prediction in predict_files(model, paths)]
    with serving(model, Limits(batch=4)) as port, ThreadPoolExecutor(10) as clients:
        answers = list(
            clients.map(lambda path: ask(port, "/predict", path.read_bytes(), content_type="image/png").json, paths)
        )
        told = ask(port, "/health").json
    for answer, row in zip(answers, wanted, strict=True):
        assert np.allclose(list(answer["probabilities"].values()), row, atol=1e-6)
    assert told["images"] == 30
    assert 30 / 4 <= told["passes"] <= 30


class Failing(Model):
    """Breaks on every second forward pass."""

    calls = 0

    def forward(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        Failing.calls += 1
        if Failing.calls % 2:
            raise MemoryError("none left")
        return super().forward(pixels)


def test_a_forward_pass_that_fails_is_an_error_of_its_requests_alone(
    model: Model, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(Failing(model.info, model.network, model.device, model.precision)) as port:
        answers = [ask(port, "/predict", png(), content_type="image/png") for _ in range(4)]
    assert [answer.status for answer in answers] == [500, 200, 500, 200]
    assert answers[0].json == {"error": "the server failed; its output says why"}
    assert "MemoryError: none left" in capfd.readouterr().err


def test_a_port_is_used_once() -> None:
    with (
        bound("127.0.0.1", 0) as listener,
        pytest.raises(OutputError, match="choose another --port"),
        bound("127.0.0.1", listener.getsockname()[1]),
    ):
        pass


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OutputError, match="cannot listen at this address"), bound("192.0.2.1", 0):
        pass
    with pytest.raises(OutputError, match=r"cannot listen at this address(.|\n)*a\.\.b, port 0"), bound("a..b", 0):
        pass


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "python_multipart"])
def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InstallationError, match='pip install .*"starlette>='):
        require_packages()


@contextmanager
def started(model: Path, plugins: Plugins) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the command; yield its process and port."""
    words = ["serve", str(model), "--port", "0", "--plugin", plugins.files[0], "--device", "cpu"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "automl_pt", *words], **pipes) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), process.communicate()[1]
            yield process, int(line.rstrip("/\n").rpartition(":")[2])
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_answers_and_ends_when_it_is_told_to(
    tmp_path: Path, plugins: Plugins, number: signal.Signals
) -> None:
    with started(make_model(tmp_path / "m", plugins), plugins) as (process, port):
        # a request whose body is still to come when the signal does is answered
        with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
            content = png()
            peer.sendall(
                f"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\nexpect: 100-continue\r\n"
                f"content-length: {len(content)}\r\n\r\n".encode()
            )
            assert b"100 Continue" in peer.recv(65_536)
            os.kill(process.pid, number)
            time.sleep(0.3)
            peer.sendall(content)
            assert b"200 OK" in peer.recv(65_536)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "")
        assert errors.strip() == "stopping: answering what has come; once more to leave at once"


CLIENT = """
import http.client, sys, threading, time
port, seconds, content = int(sys.argv[1]), float(sys.argv[2]), open(sys.argv[3], "rb").read()
counts = []
def client():
    connection, done = http.client.HTTPConnection("127.0.0.1", port, timeout=20), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.request("POST", "/predict", content, {"content-type": "image/png"})
        response = connection.getresponse()
        assert response.status == 200 and response.read()
        done += 1
    counts.append(done)
threads = [threading.Thread(target=client) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(counts) == 8
print(sum(counts))
"""


def test_eight_clients_of_another_process_get_no_error(tmp_path: Path, model: Model) -> None:
    (tmp_path / "x.png").write_bytes(png())
    with serving(model, Limits()) as port:
        words = [sys.executable, "-c", CLIENT, str(port), "1.0", str(tmp_path / "x.png")]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ask(port, "/health").json["images"] == int(done.stdout) > 8


def test_more_connections_than_allowed_are_told_so(model: Model) -> None:
    with serving(model, Limits(connections=2)) as port:
        peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        time.sleep(0.2)
        try:
            assert ask(port, "/health").status == 503
        finally:
            for peer in peers:
                peer.close()


def test_the_bomb_above_is_none_for_those_who_allow_it() -> None:
    assert Image.open(io.BytesIO(bomb(101, 100))).size == (101, 100)
