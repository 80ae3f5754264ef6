"""The page that asks who somebody is, and the one that leads on from a login."""

from __future__ import annotations

import html
import re
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri "
    "'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_LONGEST = 1024
# a path on this server; browsers leave control characters out and read \\ as /, so that either could lead
# elsewhere
_OWN = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]*")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>SegMed</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: #10161d; color: #d7dfe8;
  font: 15px/1.5 system-ui, sans-serif; }}
main, form {{ display: grid; gap: 12px; width: 280px; }}
h1 {{ margin: 0; font-size: 22px; }}
label {{ display: grid; gap: 4px; }}
input, button, a {{ font: inherit; padding: 8px 10px; border-radius: 6px; border: 1px solid #33404f; }}
input {{ background: #0a0f14; color: inherit; }}
button {{ background: #2563ab; color: #fff; cursor: pointer; }}
a {{ color: inherit; text-align: center; text-decoration: none; }}
p {{ margin: 0; color: #ff9b8f; }}
</style></head>
<body><main>
<h1>SegMed</h1>{message}{provider}
<form method="post" action="{root}/login">
<label>Name <input name="username" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<input type="hidden" name="next" value="{next}">
<button>Log in</button>
</form></main></body></html>
"""
_ON = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>SegMed</title>
<meta http-equiv="refresh" content="0; url={target}">
</head><body><a href="{target}">Go on</a></body></html>
"""


def login_page(http: Request, message: str, target: str, status: int = 200) -> Response:
    """The page that asks for name and password, or leads to the identity provider.

    Args:
        http: the request.
        message: a sentence on what went wrong; "" for none.
        target: path to go on to afterwards.
        status: of the answer.
    """
    provider, root, target = (
        http.scope["segmed.gate"].provider,
        http.scope.get("root_path", ""),
        own_path(target),
    )
    link = f"{root}/login/oidc?next={quote(target)}"
    page = _PAGE.format(
        message=f"<p>{html.escape(message)}</p>" if message else "",
        provider=f'<a href="{html.escape(link)}">Log in with {html.escape(provider.settings.title)}</a>'
        if provider
        else "",
        root=html.escape(root),
        next=html.escape(target),
    )
    return HTMLResponse(page, status, headers=HEADERS)


def moving_on(target: str) -> str:
    """A page that leads on to a path of this server."""
    return _ON.format(target=html.escape(target))


def own_path(target: str) -> str:
    """The path if it is one on this server, else "/"."""
    return target if len(target) <= _LONGEST and _OWN.fullmatch(target) else "/"
