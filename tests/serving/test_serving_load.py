"""The server under more than it can do: no work for clients that have left, bounds, and small images first."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from PIL import Image
from starlette.exceptions import HTTPException
from test_serving import LIMITS, ask, png, serving
from tiny import load_tiny, make_model

from automl_pt.images.decode import UnreadableImage
from automl_pt.model.load import Model, load_model
from automl_pt.serving.clients import Capacity, ServerBusy
from automl_pt.serving.decoding import Decoders
from automl_pt.serving.limits import LARGE, SCANS, Limits, size_of

WIDE = Limits(bytes=4_000_000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("load")
    plugins = load_tiny(folder)
    return load_model(make_model(folder / "model", plugins), device="cpu", plugins=plugins)


@pytest.fixture(scope="module")
def large() -> bytes:
    """Return a PNG of 9 million pixels in 30 KB."""
    stream = io.BytesIO()
    Image.new("RGB", (3000, 3000), (9, 99, 199)).save(stream, "PNG")
    return stream.getvalue()


class Gate:
    """Something to decode that takes until it is opened; `begun` is in the order in which that was begun."""

    def __init__(self, decoders: Decoders) -> None:
        self.decoders, self.open = decoders, threading.Event()
        self.begun: list[str] = []

    def send(self, name: str, pixels: int) -> asyncio.Task[str]:
        def decode() -> str:
            self.begun.append(name)
            assert self.open.wait(20)
            return name

        return asyncio.create_task(self.decoders.run(pixels, decode))


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(Limits(wait=20.0))
    made.count = 2
    yield made
    made.close()


def test_a_small_image_overtakes_large_ones_and_the_smallest_is_next(decoders: Decoders) -> None:
    async def play() -> list[str]:
        gate = Gate(decoders)
        tasks = [gate.send(f"large {n}", LARGE + 1) for n in range(3)] + [gate.send("small", 10)]
        await asyncio.sleep(0.1)
        assert gate.begun == ["large 0", "small"]
        tasks += [gate.send("medium", 3_000_000), gate.send("tiny", 5)]
        await asyncio.sleep(0.1)
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["large 0", "large 1", "large 2", "small", "medium", "tiny"]
        return gate.begun

    begun = asyncio.run(play())
    assert begun[2] == "tiny"
    assert begun.index("tiny") < begun.index("medium") < begun.index("large 1") < begun.index("large 2")


def test_what_nobody_waits_for_any_more_is_not_begun(decoders: Decoders) -> None:
    async def play() -> list[str]:
        gate = Gate(decoders)
        first, left, last = (gate.send(name, LARGE + 1) for name in ("first", "left", "last"))
        await asyncio.sleep(0.1)
        left.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        assert await asyncio.gather(first, last) == ["first", "last"]
        assert not decoders.waiting
        assert not decoders.running
        return gate.begun

    assert asyncio.run(play()) == ["first", "last"]


def test_the_queue_is_bounded_in_pixels_large_images_and_others_each(decoders: Decoders) -> None:
    decoders.limits = replace(decoders.limits, queue=3 * LARGE)

    async def play() -> None:
        gate = Gate(decoders)
        tasks = [gate.send("large", 2 * LARGE), gate.send("small", LARGE)]
        await asyncio.sleep(0.1)
        with pytest.raises(HTTPException, match=r"the server is busy: images of 8,000,000 pixels wait") as refused:
            await gate.send("one more", 2 * LARGE)
        assert (refused.value.status_code, refused.value.headers) == (503, {"retry-after": "20"})
        tasks.append(gate.send("small, too", LARGE))
        gate.open.set()
        await asyncio.gather(*tasks)
        # one that is beyond the bound by itself is taken where nothing else waits
        assert await gate.send("huge", 9 * LARGE) == "huge"

    asyncio.run(play())


def test_the_queue_is_bounded_in_age(decoders: Decoders) -> None:
    decoders.limits = replace(decoders.limits, wait=0.1)

    async def play() -> list[str]:
        gate = Gate(decoders)
        first, second = gate.send("first", LARGE + 1), gate.send("second", LARGE + 1)
        with pytest.raises(HTTPException, match=r"an image waited for 0.1 s; ask again later"):
            await second
        gate.open.set()
        assert await first == "first"  # what has begun is finished, however long it takes
        return gate.begun

    assert asyncio.run(play()) == ["first"]


def test_what_goes_wrong_in_a_thread_is_the_callers(decoders: Decoders) -> None:
    def fail() -> None:
        raise MemoryError("none left")

    with pytest.raises(MemoryError, match="none left"):
        asyncio.run(decoders.run(1, fail))


def sent(port: int, body: bytes, promised: int | None = None) -> socket.socket:
    """Send a request, whose body may be longer than what is sent of it, and return the open connection."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = "POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\ncontent-length: "
    peer.sendall(f"{head}{len(body) if promised is None else promised}\r\n\r\n".encode() + body)
    return peer


def settled(port: int) -> dict[str, int]:
    """Return the server's counts once they stay as they are."""
    last, now = {}, ask(port, "/health").json
    while now != last:
        time.sleep(0.4)
        last, now = now, ask(port, "/health").json
    return dict(now)


def test_images_of_clients_that_have_left_are_not_decoded(
    model: Model, large: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(model, WIDE) as port:
        gone = [sent(port, large) for _ in range(16)]
        # and some in the middle of sending, in JSON and in a form as well
        gone += [sent(port, large[:500], len(large)) for _ in range(3)]
        time.sleep(0.1)
        for peer in gone:
            peer.close()
        began = time.monotonic()
        assert ask(port, "/predict", png(), content_type="image/png").status == 200
        assert time.monotonic() - began < 10  # far more than it takes, far less than all of them would on any machine
        counts = settled(port)
    assert counts["decoded"] < 8
    assert counts["images"] < 8
    assert capfd.readouterr().err == ""  # that a client leaves is no error of the server's


def test_a_small_image_is_answered_while_large_ones_wait(model: Model, large: bytes) -> None:
    with serving(model, WIDE) as port:
        before = [sent(port, large) for _ in range(5)]
        time.sleep(0.1)
        assert ask(port, "/predict", png(), content_type="image/png").status == 200
        assert ask(port, "/health").json["decoded"] < 5
        for peer in before:
            assert b"200 OK" in peer.recv(65_536).splitlines()[0]
            peer.close()


def test_beyond_its_bounds_the_server_says_when_to_ask_again(model: Model, large: bytes) -> None:
    with serving(model, replace(WIDE, queue=9_000_000, wait=3.0)) as port:
        peers = [sent(port, large) for _ in range(5)]
        answers = [peer.recv(65_536) for peer in peers]
        for peer in peers:
            peer.close()
    refused = [answer for answer in answers if b" 503 " in answer.splitlines()[0]]
    assert 0 < len(refused) < 5
    assert b"\r\nretry-after: 3\r\n" in refused[0]
    assert b"pixels wait, and the limit is 9,000,000; ask again later" in refused[0]


def test_bodies_are_bounded_together_but_small_ones_always_taken(model: Model) -> None:
    with serving(model, replace(WIDE, held=60_000, small=30_000)) as port:
        holding = [sent(port, bytes(29_000), 40_000) for _ in range(2)]
        time.sleep(0.2)
        answer = ask(port, "/predict", bytes(31_000), content_type="image/png")
        assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "10", "close")
        assert "bytes of other requests" in answer.json["error"]
        assert ask(port, "/predict", png(), content_type="image/png").status == 200
        for peer in holding:
            peer.close()
        time.sleep(0.2)
        # 422: it is no image, but it was taken
        assert ask(port, "/predict", bytes(31_000), content_type="image/png").status == 422


def test_the_bytes_of_a_request_are_free_again_whatever_became_of_it() -> None:
    room = Capacity(replace(LIMITS, held=10, small=4))
    with room.part() as first:
        first.add(9)
        with room.part() as second:
            second.add(4)
            with pytest.raises(ServerBusy):
                second.add(1)
        assert room.held == 9
    assert room.held == 0


def test_a_connection_too_many_is_told_when_to_ask_again(model: Model) -> None:
    with serving(model, replace(LIMITS, connections=1)) as port:
        peer = socket.create_connection(("127.0.0.1", port), timeout=20)
        time.sleep(0.2)
        answer = ask(port, "/health")
        assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "5", "close")
        assert answer.json == {"error": "all connections of the server are in use; ask again later"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        peer.close()


def test_json_with_more_than_an_image_is_refused_before_it_is_parsed(model: Model) -> None:
    with serving(model, WIDE) as port:
        body = b'{"image": "", "more": [' + b"0," * 1000 + b"0]}"
        answer = ask(port, "/predict", body, content_type="application/json")
        assert (answer.status, answer.json["error"][:34]) == (400, 'the body is not JSON such as {"ima')
        name = json.dumps({"image": "eA==", "name": ",:[{" * 20})
        assert ask(port, "/predict", name, content_type="application/json").status == 422


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 199)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    assert size_of(content, "x", LIMITS) == 64 * 64
    last = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableImage, match=rf"a JPEG of 2\d\d scans, more than the limit of {SCANS}") as refused:
        size_of(content[:-2] + last * 200 + b"\xff\xd9", "x", LIMITS)
    assert refused.value.kind == "huge"
