"""`GET /docs`: the OpenAPI document as a page, which loads nothing from other servers."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from service.http.route_table import DOCS_FILES


def documentation_router(title: str, *, try_out: bool) -> APIRouter:
    def page(up: str) -> tuple[str, dict[str, str]]:
        """up: relative path to the folder of `/docs`, so that the page also works below a proxy's prefix."""
        files = f"{up}{DOCS_FILES.lstrip('/')}"
        answer = get_swagger_ui_html(
            openapi_url=f"{up}openapi.json",
            title=title,
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon.png",
            swagger_ui_parameters=None if try_out else {"supportedSubmitMethods": []},
        )
        text = bytes(answer.body).decode()
        return text, {"Content-Security-Policy": _policy(text)}

    without_slash, with_slash = page(""), page("../")
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        text, headers = with_slash if request.scope["raw_path"].endswith(b"/") else without_slash
        return HTMLResponse(text, headers=headers)

    router.mount(DOCS_FILES, StaticFiles(packages=[("fastapi_offline", "static")]))
    return router


def _policy(page: str) -> str:
    """The Content-Security-Policy that allows the page's own scripts and no injected ones."""
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digests = [base64.b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
