"""The HTTP service: the answers of a real server, and everything that it refuses."""

import asyncio
import contextlib
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from small_project import EXPERIMENTS, make_project, write_experiment
from warm import Command, foldsmith

import foldsmith as package
from foldsmith.extras.serve.limits import Limits
from foldsmith.extras.serve.service import create_app
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test

QUICK = {
    "globals/max_epoch": 1,
    "loader/train/num_workers": 0,
    "model/pretrained": None,
    "dataset/mixup": None,
}
RUN = "output/900"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_images):
    """A project after its ensemble; no test changes it."""
    folder = make_project(tmp_path_factory.mktemp("served") / "project", small_images)
    write_experiment(folder, "100", EXPERIMENTS["100"] | QUICK)
    frozen = {
        "import": "foldsmith:image_descriptors.yml",
        "globals/output_root": "output/200",
        "head": {"type": "RidgeHead"},
    }
    write_experiment(folder, "200", frozen)
    result = foldsmith(folder, "run", "-cfg", "exp_config/900.yml", "--no-report")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def images(finished):
    project = ProjectFolder.open(finished)
    return image_paths(project, read_test(project))


@pytest.fixture(scope="module")
def predicted(finished, images, tmp_path_factory):
    """What 'foldsmith predict' says of the images."""
    out = tmp_path_factory.mktemp("predicted") / "out.csv"
    result = foldsmith(finished, "predict", "--run", RUN, *map(str, images), "-o", str(out))
    assert result.returncode == 0, result.stderr
    return pd.read_csv(out)


@pytest.fixture(scope="module")
def predictor(finished):
    return package.load(finished / RUN)


@pytest.fixture(scope="module")
def client(predictor):
    return TestClient(create_app(predictor, "900", Limits(megabytes=0.2, megapixels=0.1)))


def start(folder, *arguments):
    command = Command(folder, "serve", "--run", RUN, "--port", "0", *arguments)
    command.wait_for_output("Ctrl-C ends it")
    return command, command.read()[0].partition(" answers at ")[2].partition(" ")[0]


@pytest.fixture
def server(finished):
    command, url = start(finished, "--max-megabytes", "0.2")
    yield url
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 0, command.read()
    assert command.read()[1] == ""


def files(*paths):
    return [("file", (path.name, path.read_bytes())) for path in paths]


def equal(answer, table):
    assert [entry["id"] for entry in answer] == [path.rsplit("/")[-1] for path in table["path"]]
    for name in ("prediction", "spread"):
        found = [entry[name] for entry in answer]
        np.testing.assert_allclose(found, table[name], rtol=0, atol=1e-6)


def test_a_real_server_predicts_as_the_command_does(server, images, predicted):
    assert predicted["prediction"].nunique() > 4
    answer = httpx.post(f"{server}/predict", files=files(*images)).json()
    equal(answer["predictions"], predicted)
    one = urllib.request.Request(
        f"{server}/predict", images[1].read_bytes(), {"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(one) as reply:
        (entry,) = json.load(reply)["predictions"]
    assert entry["id"] is None and entry["probabilities"] is None
    assert entry["prediction"] == pytest.approx(predicted["prediction"][1], abs=1e-6)
    health = httpx.get(f"{server}/health").json()
    assert health == {"ready": True, "run": "900", "version": package.__version__}

    bad = httpx.post(f"{server}/predict", files=[("file", ("notes.txt", b"no image"))])
    assert bad.status_code == 415
    assert bad.json() == {"detail": "notes.txt: is not an image that can be read"}
    # What was refused does no harm.
    again = httpx.post(f"{server}/predict", files=files(*images)).json()
    equal(again["predictions"], predicted)


def test_a_real_server_refuses_before_it_reads(server):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        # Of so much nothing is ever sent.
        line.sendall(f"{head}Content-Length: 5000000000\r\n\r\n".encode())
        reply = line.makefile("rb").read().decode()
    assert reply.startswith("HTTP/1.1 413 ")
    assert reply.endswith(
        '{"detail":"the request is larger than 0.2 MB; send fewer or smaller images"}'
    )
    with socket.create_connection((host, int(port)), timeout=20) as line:
        # Without a length it is counted: the end never comes, the answer does.
        line.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        line.sendall(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
        assert line.makefile("rb").readline().startswith(b"HTTP/1.1 413 ")


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.fixture(scope="module")
def strict(finished):
    """A server of two requests at a time, whose clients have a second to send theirs."""
    command, url = start(finished, "--max-requests", "2", "--timeout", "1")
    host, port = url.removeprefix("http://").split(":")
    assert command.read()[0].startswith("900 (")  # the run, in words
    yield command, url, lambda: socket.create_connection((host, int(port)), timeout=20)
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 0, command.read()
    # Whatever clients did: not a line, let alone a traceback.
    assert command.read()[1] == ""


def answer_of(line):
    return line.makefile("rb").read().decode()


def memory_of(command):
    status = Path(f"/proc/{command.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1e3


def test_slow_heads_and_bodies_end_in_time(strict, images):
    _, url, connect = strict
    begun = time.monotonic()
    lines = [connect() for _ in range(60)]
    for number, line in enumerate(lines):
        # Nothing at all, half a head, a head without its end, or a body that never comes.
        sent = (b"", HEAD[:20], HEAD + b"X: 1\r\n", HEAD + b"Content-Length: 1000\r\n\r\n1")
        line.sendall(sent[number % 4])
    # Health does not wait for them.
    assert httpx.get(f"{url}/health").status_code == 200
    assert time.monotonic() - begun < 5
    answers = [answer_of(line) for line in lines]
    assert time.monotonic() - begun < 10
    for number, answer in enumerate(answers):
        allowed = ("408",) if number % 4 < 3 else ("408", "503")
        assert answer.startswith(tuple(f"HTTP/1.1 {code} " for code in allowed)), answer
    assert httpx.post(f"{url}/predict", files=files(images[0])).status_code == 200


def test_so_many_requests_at_a_time_and_no_more(strict, images):
    command, url, connect = strict
    before = memory_of(command)
    lines = [connect() for _ in range(12)]
    head = HEAD + b"Content-Length: 19000000\r\n\r\n"
    for line in lines:
        line.sendall(head)
        line.setblocking(False)
    # As much of the bodies as the server takes, for a moment.
    part, until, sent = b"x" * 2**20, time.monotonic() + 0.8, [0] * len(lines)
    while time.monotonic() < until:
        for number, line in enumerate(lines):
            if sent[number] + len(part) < 19_000_000:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    sent[number] += line.send(part)
    assert memory_of(command) - before < 150
    refused = 0
    for line in lines:
        line.settimeout(20)
        with contextlib.suppress(ConnectionError):
            answer = answer_of(line)
            if answer.startswith("HTTP/1.1 503 "):
                refused += 1
                assert "retry-after: 2" in answer.lower() and "no more may be" in answer
    assert refused >= 5
    assert httpx.post(f"{url}/predict", files=files(images[0])).status_code == 200


def test_clients_that_go_away_leave_no_trace(strict, images):
    command, url, connect = strict
    body = images[0].read_bytes()
    whole = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    for sent in (b"", HEAD, whole[: len(whole) // 2], whole, b"nonsense\r\n\r\n"):
        with connect() as line:
            line.sendall(sent)
            # With a reset, not an end.
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.5)
    assert httpx.post(f"{url}/predict", files=files(images[0])).status_code == 200
    assert command.read()[1] == ""


def test_more_connections_than_there_may_be_are_refused(strict):
    _, url, connect = strict
    lines = [connect() for _ in range(270)]
    answers = [answer_of(line) for line in lines]
    assert sum(answer.startswith("HTTP/1.1 503 ") for answer in answers) >= 10
    assert all(answer[:13] in ("HTTP/1.1 503 ", "HTTP/1.1 408 ") for answer in answers)
    for line in lines:
        line.close()
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_connection_that_is_kept_may_wait_but_not_dawdle(strict):
    _, _, connect = strict
    with connect() as line:
        for _ in range(2):
            line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            seen = b""
            while not seen.endswith(b"}"):
                seen += line.recv(4096)
            assert seen.startswith(b"HTTP/1.1 200 ")
        line.sendall(b"GET /hea")
        assert answer_of(line).startswith("HTTP/1.1 408 ")


def test_the_root_says_what_there_is(client):
    listed = client.get("/").json()
    assert listed["run"] == "900" and listed["foldsmith"] == package.__version__
    for endpoint in listed["endpoints"]:
        method, path = endpoint.split()
        assert client.request(method, path).status_code in (200, 415)
    assert "POST /predict" in listed["endpoints"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_told_to(finished, number):
    command, url = start(finished)
    with httpx.Client() as kept_alive:
        assert kept_alive.get(f"{url}/health").status_code == 200
        command.send_signal(number)
        assert command.wait(30) == 0
    assert command.read()[1] == ""


def test_a_port_that_is_taken_is_one_line(finished, cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = cli(finished, "serve", "--run", RUN, "--port", port, code=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"foldsmith: error: --port {port}: cannot be listened at on 127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: no such address"),
        (["--max-megabytes", "0"], "--max-megabytes: 0 must be above 0"),
        (["--max-megapixels", "nan"], "--max-megapixels: nan must be above 0"),
        (["--max-requests", "0"], "--max-requests: 0 must be above 0"),
        (["--timeout", "-1"], "--timeout: -1 must be above 0"),
        (["--blend", "rigde"], "no blend 'rigde' (did you mean ridge?)"),
    ],
)
def test_what_cannot_be_served_is_one_line(finished, cli, arguments, message):
    result = cli(finished, "serve", "--run", RUN, "--port", "0", *arguments, code=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith("foldsmith: error: ") and message in line


def test_without_its_packages_it_says_what_to_install():
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['foldsmith', 'serve', '--run', 'x']"
        "; from foldsmith.cli.main import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    # The packages themselves, wherever foldsmith was installed from.
    assert result.stderr.startswith("foldsmith: error: serve needs uvicorn; run: pip install ")
    assert "'fastapi>=" in result.stderr and "'uvicorn>=" in result.stderr
    assert "foldsmith[" not in result.stderr


def png(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "png")
    return buffer.getvalue()


def test_a_small_file_may_not_hold_a_large_picture(client):
    # The larger one, of 1.2 GB when it is decoded, is beyond what Pillow opens.
    for bomb in (png(2_000, 2_000), png(20_000, 20_000)):
        assert len(bomb) < 100_000
        reply = client.post("/predict", content=bomb, headers={"Content-Type": "image/png"})
        assert reply.status_code == 413
        assert reply.json()["detail"].startswith("the body: more than 0.1 megapixels in one re")
    # Together, too; each alone is small enough.
    several = [("file", (f"{k}.png", png(200, 200))) for k in range(3)]
    reply = client.post("/predict", files=several)
    assert reply.status_code == 413 and reply.json()["detail"].startswith("2.png: more than")
    assert client.post("/predict", files=several[:2]).status_code == 200


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_images_that_are_cut_short_are_named(client, suffix):
    rng = np.random.default_rng(0)
    data = cv2.imencode(suffix, rng.integers(0, 255, (60, 60, 3), np.uint8))[1].tobytes()
    reply = client.post("/predict", files=[("file", ("good", data))])
    assert reply.status_code == 200
    two = [("file", ("good", data)), ("file", (f"cut{suffix}", data[: len(data) // 2]))]
    reply = client.post("/predict", files=two)
    assert reply.status_code in (415, 422)
    assert reply.json()["detail"].startswith(f"cut{suffix}: ")
    assert "\n" not in reply.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"files": [("image", ("1.jpg", b"x"))]}, 400, "the form has no image"),
        ({"data": {"file": "1.jpg"}, "files": [("x", ("x", b"x"))]}, 400, "the form has no image"),
        ({"files": [("file", ("1.jpg", b""))]}, 415, "1.jpg: is empty"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "the content type is"),
        ({"content": b"x"}, 415, "the content type is missing; send a form"),
        (
            {"content": b"", "headers": {"Content-Type": "image/png"}},
            *(415, "the body: is empty"),
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            *(400, "Missing boundary"),
        ),
        (
            {"files": [("file", (f"{k}.png", b"x")) for k in range(101)]},
            *(400, "Too many files"),
        ),
    ],
)
def test_requests_that_are_wrong_are_one_line(client, request_, status, detail):
    reply = client.post("/predict", **request_)
    assert reply.status_code == status
    assert reply.json()["detail"].startswith(detail) and "\n" not in reply.json()["detail"]


def test_what_the_predictor_refuses_is_said(client, predictor, monkeypatch):
    def refuse(images):
        raise package.errors.DataError("image 0:\nis too small")

    monkeypatch.setattr(predictor, "predict", refuse)
    reply = client.post("/predict", files=[("file", ("1.png", png(5, 5)))])
    assert (reply.status_code, reply.json()["detail"]) == (422, "image 0: is too small")


def test_the_page_of_help_needs_no_network(client):
    page = client.get("/docs").text
    assert "curl -F file=@1.jpg" in page and "http://testserver/predict" in page
    assert "<script" not in page and "https://" not in page
    schema = client.get("/openapi.json").json()
    kinds = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(kinds) == {"multipart/form-data", "image/*"}


def test_many_at_once_get_their_own_answers(predictor, images, predicted):
    """Requests take turns at the models, and health waits for none of them."""
    inside, most, go_on = 0, 0, threading.Event()
    real = predictor.predict

    class Slow:
        intensity_range = None

        def predict(self, images):
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            go_on.wait(30)
            table = real(images)
            inside -= 1
            return table

    app = create_app(Slow(), "900", Limits())

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60) as web:
            asked = [
                asyncio.create_task(web.post("/predict", files=files(image))) for image in images
            ]
            until = time.monotonic() + 20
            while not inside and time.monotonic() < until:
                await asyncio.sleep(0.01)
            health = await web.get("/health")
            assert inside == 1 and health.json()["ready"]
            go_on.set()
            return await asyncio.gather(*asked)

    replies = asyncio.run(ask())
    equal([entry for reply in replies for entry in reply.json()["predictions"]], predicted)
    assert most == 1
