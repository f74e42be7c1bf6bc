"""The settings in force, masked, with the source of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from relay.settings.render import EffectiveValue, effective_values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.page.site import Site


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the routes of the settings."""

    async def get(request: web.Request) -> web.Response:
        loaded = site.sources.loaded()
        sections: dict[str, list[EffectiveValue]] = {}
        for each in effective_values(loaded):
            sections.setdefault(each.section, []).append(each)
        return site.renderer.page(request, "settings.html", sections=sections, warnings=loaded.warnings)

    return [web.get("/settings", site.guard.protect(get))]
