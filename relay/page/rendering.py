"""Renders templates. Everything that a template writes is made visible and escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from relay import __version__
from relay.core.quantities import duration, size
from relay.page import text
from relay.page.access import VISITOR
from relay.page.navigation import ENTRIES

if TYPE_CHECKING:
    from relay.page.tokens import FormTokens

FOLDER = Path(__file__).parent


def build_environment() -> Environment:
    """Returns the environment of all templates."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        finalize=text.visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for function in (duration, size, text.count, text.iso_time, text.share, text.short_time, text.utc_time):
        environment.filters[function.__name__] = function
    environment.globals["outcome_words"] = text.OUTCOME_WORDS
    environment.globals["version"] = __version__
    environment.globals["navigation"] = ENTRIES
    return environment


class Renderer:
    """Renders pages for the visitor of a request, and parts of pages."""

    def __init__(self, tokens: FormTokens, host: str, *, needs_login: bool) -> None:
        self._environment = build_environment()
        self._environment.globals["needs_login"] = needs_login
        self._tokens = tokens
        self._host = host

    def page(self, request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """Returns a page. Templates also see the visitor, the token for forms, and the path."""
        visitor = request.get(VISITOR)
        values |= {
            "visitor": visitor,
            "token": self._tokens.token(visitor.session if visitor else ""),
            "path": request.path,
            "host": self._host,
        }
        return web.Response(text=self.fragment(template, **values), status=status, content_type="text/html")

    def fragment(self, template: str, **values: Any) -> str:
        """Returns what a template writes."""
        return self._environment.get_template(template).render(values)
