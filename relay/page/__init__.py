"""The web page at `http.address`: what the relay does, what happened to each message, rules and settings.

`service` gives its routes to the HTTP server. Pages are rendered on the server (jinja2) and work without JavaScript.

To add a page: a module with a function `routes(page)`, which `site` calls, a template that extends `base.html`, and a
line in `navigation`. May import explain, simulate, settings, monitor and every package below.
"""
