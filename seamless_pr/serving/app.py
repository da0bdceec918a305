"""The HTTP side: addresses, formats, token, errors in words. ASGI; knows nothing of Ray."""

# No `from __future__ import annotations`: FastAPI reads the types of the functions below, and they
# exist only inside the function that needs FastAPI.
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2

from seamless_pr import __version__
from seamless_pr.serving.answers import JPEG_QUALITY, MEDIA_TYPES, choose_format, encode_picture
from seamless_pr.serving.counts import Sample, add_counts, prometheus_text
from seamless_pr.serving.limits import RequestRefusedError
from seamless_pr.serving.page import NUM_EXAMPLES, api_page, try_page
from seamless_pr.serving.service import PanopticService
from seamless_pr.street_scenes.dataset import draw_street_scene

EXAMPLE_SIZE = (512, 1024)
EXAMPLE_SEED = 7
_LOG = logging.getLogger(__name__)
_NO_STORE = {"Cache-Control": "no-store"}
# The page needs nothing from elsewhere, and nobody else's page may hold it.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_app(
    service: PanopticService,
    *,
    token: str = "",
    allow_origins: Sequence[str] = (),
    metrics: Callable[[], Awaitable[str]] | None = None,
) -> Any:
    """The application around a service: a FastAPI.

    Args:
        service: labels images.
        token: what clients must send as `Authorization: Bearer TOKEN`; empty: nothing.
        allow_origins: of other web pages that may use this server; none by default.
        metrics: the text of /metrics; None: the counts of this service alone.
    """
    from fastapi import Depends, FastAPI, Query, Request, Response
    from fastapi.middleware.cors import CORSMiddleware
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

    app = FastAPI(
        title="Panoptic segmentation",
        version=__version__,
        description="An image in, the class and object of every pixel out.",
        docs_url=None,
        redoc_url=None,
    )
    if allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allow_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )

    def refuse_strangers(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise RequestRefusedError(
                401,
                "this server asks for a token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    known = [Depends(refuse_strangers)]

    @app.exception_handler(RequestRefusedError)
    async def refuse(request: Request, error: RequestRefusedError) -> JSONResponse:
        return JSONResponse({"error": error.reason}, error.status, error.headers)

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> JSONResponse:
        _LOG.exception("a request failed", exc_info=error)
        return JSONResponse({"error": "the server failed; its log says how"}, 500)

    @app.post(
        "/v1/panoptic",
        summary="Labels images",
        dependencies=known,
        response_class=Response,
        responses=_answers(),
        openapi_extra={"requestBody": _request_body()},
    )
    async def panoptic(
        request: Request,
        format: str | None = Query(
            None, description=f"{', '.join(MEDIA_TYPES)}; without it the header Accept decides"
        ),
    ) -> Response:
        answer_format = choose_format(format, request.headers.get("accept", ""))
        answer = await service.answer(request, answer_format)
        return Response(answer.body, media_type=answer.media_type, headers=_NO_STORE)

    @app.get("/v1/model", summary="The network, its classes, limits", dependencies=known)
    async def model() -> dict[str, Any]:
        return service.describe()

    @app.get(
        "/v1/examples/{number}",
        summary="A drawn street scene to try it with",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )
    def example(number: int) -> Response:
        if not 0 <= number < NUM_EXAMPLES:
            raise RequestRefusedError(404, f"there are examples 0 to {NUM_EXAMPLES - 1}")
        headers = {"Cache-Control": "max-age=86400"}
        return Response(_example(number), media_type="image/jpeg", headers=headers)

    @app.get("/healthz", summary="The process is alive", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "alive"

    @app.get("/readyz", summary="The network labels images", response_class=PlainTextResponse)
    async def readyz() -> PlainTextResponse:
        ready = service.is_ready()
        return PlainTextResponse("ready" if ready else "not ready", 200 if ready else 503)

    totals: dict[Sample, float] = {}

    @app.get("/metrics", summary="Prometheus", dependencies=known, response_class=PlainTextResponse)
    async def show_metrics() -> PlainTextResponse:
        if metrics is not None:
            text = await metrics()
        else:
            add_counts(totals, service.counts.take())
            text = prometheus_text(totals, [service.num_waiting])
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(try_page(service.describe(), bool(token)), headers=_PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()), headers=_PAGE_HEADERS)

    return app


@lru_cache(NUM_EXAMPLES)
def _example(number: int) -> bytes:
    scene = draw_street_scene(EXAMPLE_SEED, "val", number, EXAMPLE_SIZE)
    return encode_picture(scene.image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def _request_body() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    uris = {"type": "array", "items": {"type": "string"}}
    return {
        "required": True,
        "description": "One image as it is; or files in a form; or URIs, where the server reads "
        "from any.",
        "content": {
            **{f"image/{kind}": binary for kind in ("jpeg", "png", "webp", "tiff")},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": files, "uri": uris}}
            },
            "application/json": {"schema": {"type": "object", "properties": {"uris": uris}}},
        },
    }


def _answers() -> dict[int | str, dict[str, Any]]:
    """What the status of an answer means."""
    reasons = {
        400: "the body is not what it says it is",
        401: "no token, or a wrong one",
        403: "a URI that this server does not read",
        406: "no such format",
        408: "it did not come to its end in time",
        413: "too many bytes or pixels",
        422: "not an image",
        503: "too many images wait; Retry-After says when to come again",
        504: "it took too long",
    }
    formats: dict[str, Any] = {media_type: {} for media_type in MEDIA_TYPES.values()}
    return {
        200: {"description": "a map for each image", "content": formats},
        **{status: {"description": text} for status, text in reasons.items()},
    }
