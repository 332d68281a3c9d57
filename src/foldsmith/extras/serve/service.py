"""A small HTTP service that predicts images by a finished run, for trying it."""

import asyncio
import html
import io
import logging
import signal
import socket
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel
from starlette.datastructures import UploadFile

from foldsmith import __version__
from foldsmith.data.images import decode_bytes
from foldsmith.data.intensity import DeepImageError
from foldsmith.errors import ConfigError, DataError, one_line
from foldsmith.extras.serve.limits import Limits, Turns, protocol_of, read_body
from foldsmith.predictor.predict import load

if TYPE_CHECKING:
    from foldsmith.config import Checkpoint
    from foldsmith.predictor.predictor import Predictor

logger = logging.getLogger(__name__)

# The columns of a prediction that are the probabilities of classes begin so.
_PROBABILITY = "probability_"

# Images of one request.
_MAX_IMAGES = 100

# Seconds that requests have to end when the service is told to.
_GRACE = 30


class Prediction(BaseModel):
    """The prediction for one image.

    Attributes:
        id: Name of the file; null for an image that is the whole body.
        prediction: In units of the target, or the name of the class; of several numbers or class
            targets by name.
        spread: Standard deviation of the members' predictions, likewise.
        probabilities: Probability of each class, if the run predicts them; of several class
            targets as ``colour=red``.
    """

    id: str | None
    prediction: float | str | dict[str, float] | dict[str, str]
    spread: float | dict[str, float]
    probabilities: dict[str, float] | None = None


class PredictionList(BaseModel):
    """The answer to ``POST /predict``: one entry per image, in their order."""

    predictions: list[Prediction]


class Health(BaseModel):
    """The answer to ``GET /health``."""

    ready: bool
    run: str
    version: str


class Service(BaseModel):
    """The answer to ``GET /``."""

    foldsmith: str
    run: str
    endpoints: dict[str, str]


_ENDPOINTS = {
    "POST /predict": "predictions of images",
    "GET /health": "whether the run is loaded",
    "GET /docs": "how to ask, for people",
    "GET /openapi.json": "how to ask, for programs",
}


@dataclass(frozen=True)
class _Upload:
    """An image that was sent: its name, if it has one, and its content."""

    name: str | None
    content: bytes

    @property
    def label(self) -> str:
        """Name in errors."""
        return self.name or "the body"


def serve(
    run: Path | str,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    *,
    blend: str | None = None,
    checkpoint: "Checkpoint | None" = None,
    device: str | None = None,
    project: Path | str | None = None,
    trust: bool = False,
) -> None:
    """Answer HTTP requests until SIGINT (Ctrl-C) or SIGTERM.

    Args:
        run: As for :func:`foldsmith.load`.
        host: Address to listen at.
        port: Its port; 0 for any free port.
        limits: What a request may send.
        blend: As for :func:`foldsmith.load`.
        checkpoint: As for :func:`foldsmith.load`.
        device: As for :func:`foldsmith.load`.
        project: As for :func:`foldsmith.load`.
        trust: As for :func:`foldsmith.load`.

    Raises:
        ConfigError: The address is taken or does not exist, or the run is wrong.
        FoldsmithError: As :func:`foldsmith.load`.
    """
    # First, so that a used port is reported at once; early requests wait until the run is loaded.
    with _bound(host, port) as listener:
        predictor = load(
            run, blend=blend, checkpoint=checkpoint, device=device, project=project, trust=trust
        )
        name, limits = Path(run).resolve().name, limits or Limits()
        config = uvicorn.Config(
            create_app(predictor, name, limits),
            http=protocol_of(limits),
            ws="none",
            # Clients that send nonsense get an answer, and need no line here.
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{listener.getsockname()[1]}"
        of = ", ".join(predictor.members)
        of = f"{predictor.blend} of {of}" if predictor.blend else of
        logger.info(f"{name} ({of}) answers at {url} ({url}/docs says how); Ctrl-C ends it")
        with _signals_that_only_end():
            uvicorn.Server(config).run([listener])


def create_app(predictor: "Predictor", run: str, limits: Limits) -> FastAPI:
    """Return the service.

    Args:
        predictor: The predictor; used by one thread at a time.
        run: Name of the run.
        limits: What a request may send.
    """
    app = FastAPI(title=f"foldsmith: {run}", version=__version__, docs_url=None, redoc_url=None)
    turns = Turns(limits)
    # The one thread of the models: requests wait for each other, and not for anything else.
    models = ThreadPoolExecutor(1, thread_name_prefix="models")

    @app.get("/")
    async def root() -> Service:
        """List the endpoints."""
        return Service(foldsmith=__version__, run=run, endpoints=_ENDPOINTS)

    @app.get("/health")
    async def health() -> Health:
        """Say that the run is loaded, and which it is."""
        return Health(ready=True, run=run, version=__version__)

    @app.post(
        "/predict",
        openapi_extra={"requestBody": _REQUEST_BODY},
        responses={code: {"description": text} for code, text in _REFUSALS.items()},
    )
    async def predict(request: Request) -> PredictionList:
        """Predict the images of a request."""
        async with turns.one(request):
            uploads = await _uploads(request, limits)
            _check_pixels(uploads, limits)
            loop = asyncio.get_running_loop()
            table = await loop.run_in_executor(models, _predict, predictor, uploads)
        return PredictionList(
            predictions=[
                _prediction(upload, row)
                for upload, (_, row) in zip(uploads, table.iterrows(), strict=True)
            ]
        )

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs(request: Request) -> str:
        """Say how to ask."""
        return _docs(run, str(request.base_url).rstrip("/"), limits)

    return app


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host}: no such address: {one_line(error)}") from None
    with socket.socket(family, kind, protocol) as listener:
        # A service that has just ended leaves its port usable.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            # Two may bind so, but only one may listen.
            listener.listen(_MAX_IMAGES)
        except OSError as error:
            raise ConfigError(
                f"--port {port}: cannot be listened at on {host} ({error.strerror}); name another "
                "with --port, or 0 for any that is free"
            ) from None
        yield listener


@contextmanager
def _signals_that_only_end() -> Iterator[None]:
    """Make the end that was asked for a success: uvicorn raises the signal anew when it is done."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    raise SystemExit(0)


async def _uploads(request: Request, limits: Limits) -> list[_Upload]:
    """Return the images of a request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return [_Upload(None, await read_body(request, limits))]
    if kind != "multipart/form-data":
        raise HTTPException(
            415,
            f"the content type is {kind or 'missing'}; send a form (multipart/form-data) with "
            "images as 'file', or one image as the body with its type, as in image/jpeg",
        )
    body = await read_body(request, limits)

    async def once() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    # The form's parser reports problems of a form, as a 400.
    async with Request(request.scope, once).form(max_files=_MAX_IMAGES, max_fields=10) as form:
        files = form.getlist("file")
        if not files or not all(isinstance(file, UploadFile) for file in files):
            raise HTTPException(400, "the form has no image: send each as a file called 'file'")
        return [
            _Upload(file.filename, await file.read())
            for file in files
            if isinstance(file, UploadFile)
        ]


def _check_pixels(uploads: list[_Upload], limits: Limits) -> None:
    """Make sure that the images are images, of no more pixels than is allowed, undecoded."""
    pixels = 0
    for upload in uploads:
        try:
            with warnings.catch_warnings():
                # Pillow's own limit is not ours.
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(upload.content)) as image:
                    pixels += image.width * image.height
        except Image.DecompressionBombError:
            pixels += int(limits.megapixels * 1e6) + 1
        except UnidentifiedImageError:
            what = "is not an image that can be read" if upload.content else "is empty"
            raise HTTPException(415, f"{upload.label}: {what}") from None
        except Exception as error:  # whatever a format's reader makes of odd bytes
            raise HTTPException(422, f"{upload.label}: is damaged ({one_line(error)})") from None
        if pixels > limits.megapixels * 1e6:
            raise HTTPException(
                413,
                f"{upload.label}: more than {limits.megapixels:g} megapixels in one request; send "
                "fewer or smaller images",
            )


def _predict(predictor: "Predictor", uploads: list[_Upload]) -> pd.DataFrame:
    """Predict images, in the thread of the models."""
    images = []
    for upload in uploads:
        try:
            # As 'foldsmith predict' decodes files, to the bit.
            content = np.frombuffer(upload.content, np.uint8)
            images.append(decode_bytes(content, Path(upload.label), predictor.intensity_range))
        except DeepImageError as error:
            what = f"has {error.form} values, but the models were trained on 8-bit images"
            raise HTTPException(422, f"{upload.label}: {what}") from None
        except DataError:
            what = "is damaged, truncated or in an unsupported format"
            raise HTTPException(422, f"{upload.label}: {what}") from None
    try:
        return predictor.predict(images)
    except DataError as error:
        raise HTTPException(422, one_line(error)) from None


def _prediction(upload: _Upload, row: "pd.Series[Any]") -> Prediction:
    if "prediction" not in row.index:
        return Prediction(
            id=upload.name,
            prediction=_by_name(row, "prediction_"),
            spread=_by_name(row, "spread_"),
            probabilities=_by_name(row, _PROBABILITY) or None,
        )
    value = row["prediction"]
    return Prediction(
        id=upload.name,
        prediction=value if isinstance(value, str) else float(value),
        spread=float(row["spread"]),
        probabilities=_by_name(row, _PROBABILITY) or None,
    )


def _by_name(row: "pd.Series[Any]", prefix: str) -> dict[str, Any]:
    """Return the numbers or texts in the columns with a prefix, by the rest of their names."""
    return {
        str(name).removeprefix(prefix): value if isinstance(value, str) else float(value)
        for name, value in row.items()
        if str(name).startswith(prefix)
    }


_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}

_REFUSALS: dict[int | str, str] = {
    400: "The form is broken, or has no file called 'file'.",
    408: "A request that was not complete in time.",
    413: "More bytes or pixels than are allowed.",
    415: "Neither a form nor an image, or a file that is not an image.",
    422: "An image that is damaged or truncated, or that the run cannot predict.",
    503: "More requests at one time than are served; Retry-After says when to try again.",
}


def _docs(run: str, url: str, limits: Limits) -> str:
    """Return the page that documents the requests; it needs no network."""
    refusals = "".join(f"<li><b>{code}</b> {html.escape(t)}</li>" for code, t in _REFUSALS.items())
    name, url = html.escape(run), html.escape(url)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>foldsmith: {name}</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 48em; margin: 2em auto; padding: 0 1em }}
pre {{ background: #8882; padding: .6em; overflow-x: auto }}</style>
<h1>{name}</h1>
<p>Predictions of images, as <code>foldsmith predict</code> makes them.</p>
<h2>POST /predict</h2>
<p>One image or several (up to {_MAX_IMAGES}) as files called <code>file</code> of a form:</p>
<pre>curl -F file=@1.jpg -F file=@2.jpg {url}/predict</pre>
<p>or one image as the body, with its content type:</p>
<pre>curl -H "Content-Type: image/jpeg" --data-binary @1.jpg {url}/predict</pre>
<p>The answer has an entry per image, in their order: <code>id</code> (name of the file; null for a
body), <code>prediction</code>, <code>spread</code> (how far the members disagree),
<code>probabilities</code> (by class; null where the run predicts none).</p>
<pre>{{"predictions": [{{"id": "1.jpg", "prediction": 1.93, "spread": 0.21,
                  "probabilities": null}}]}}</pre>
<p>A request may have {limits.megabytes:g} MB and its images {limits.megapixels:g} megapixels
together, and {limits.seconds:g} seconds to arrive; {limits.requests} requests are served at a
time. Each refusal has one line with the reason, as <code>{{"detail": "..."}}</code>:</p>
<ul>{refusals}</ul>
<h2>GET /health</h2>
<p>Answers at any time: <code>ready</code>, <code>run</code>, <code>version</code>.</p>
<h2>GET /</h2>
<p>Lists all of this as JSON.</p>
<p>The same for programs: <a href="{url}/openapi.json">openapi.json</a>.</p>
</html>
"""
