"""The documentation of the API, from this host alone: no file comes from another one."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from containerstacks_billing.web.middleware import CONTENT_SECURITY_POLICY
from containerstacks_billing.web.problems import Refused

router = APIRouter(include_in_schema=False)

# Swagger UI sets style attributes; scripts stay strict.
_POLICY = CONTENT_SECURITY_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Billing API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/dark.css">
</head>
<body>
<main id="swagger-ui"></main>
<noscript>The API is described in <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, persistAuthorization: false
});
"""
# Swagger UI knows no dark colours: turned round, with their hues turned back, its light ones serve.
_DARK = """body { margin: 0; }
@media (prefers-color-scheme: dark) {
  html { background: #16181c; }
  #swagger-ui { background: #fff; min-height: 100vh; filter: invert(0.9) hue-rotate(180deg); }
}
"""


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Show the documentation."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """Start it; a file of its own, because a strict policy allows no script inside the page."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/dark.css")
async def dark() -> Response:
    """Give its colours for the dark."""
    return Response(_DARK, media_type="text/css")


@router.get("/docs/{name}")
def asset(request: Request, name: str) -> Response:
    """Give one of its files; they change with the version of this software only."""
    del request
    kind = _ASSETS.get(name)
    if kind is None:
        raise Refused(404, "There is no such file.")
    content = files("containerstacks_billing.web").joinpath("assets", "swagger-ui", name).read_bytes()
    return Response(content, headers={"Content-Type": kind, "Cache-Control": "public, max-age=3600"})
