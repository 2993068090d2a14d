"""What goes wrong, as problem details (RFC 9457): one shape for every error, and nothing secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from containerstacks_billing.errors import BillingError, DatabaseUnavailable, LoginRefused
from containerstacks_billing.logs import logger
from containerstacks_billing.redaction import redact

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """A problem as RFC 9457 writes it."""

    type: str = Field(
        "about:blank", description="What kind of problem; about:blank means that the status says it all"
    )
    title: str = Field(description="The status in words")
    status: int = Field(description="The HTTP status", ge=400, le=599)
    detail: str | None = Field(None, description="One sentence about this occurrence")


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def problem(status: int, detail: str | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the answer."""
    body = Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(
        body.model_dump(exclude_none=True),
        status_code=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says about these statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Answer every error of this application with a problem."""

    @app.exception_handler(Refused)
    def _refused(_request: Request, error: Refused) -> JSONResponse:
        return problem(error.status, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    def _http(_request: Request, error: HTTPException) -> JSONResponse:
        detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else None
        headers = dict(error.headers or {})
        # HEAD is answered wherever GET is.
        if "GET" in headers.get("Allow", "").split(", "):
            headers["Allow"] = ", ".join(sorted({*headers["Allow"].split(", "), "HEAD"}))
        return problem(error.status_code, detail, headers)

    @app.exception_handler(RequestValidationError)
    def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # Where it is wrong and why, never what was sent.
        found = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()[:5]
        )
        return problem(422, found[:500])

    @app.exception_handler(BillingError)
    def _billing(request: Request, error: BillingError) -> JSONResponse:
        context = request.app.state.context
        # An outage is logged once, by the reader of the health, and not by each request that meets it.
        if not context.readings.blind:
            context.unanswered.report(error)
        away = isinstance(error, (DatabaseUnavailable, LoginRefused))
        # The address of the database and the names in its answers are not for clients.
        detail = "The database does not answer." if away else "The database could not be read."
        return problem(503, detail, {"Retry-After": "5"})

    @app.exception_handler(Exception)
    def _unforeseen(_request: Request, error: Exception) -> JSONResponse:
        logger().error(
            "A request failed in an unforeseen way", error=redact(f"{type(error).__name__}: {error}")
        )
        return problem(500, "Something unforeseen happened; the log says what.")
