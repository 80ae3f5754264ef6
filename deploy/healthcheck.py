#!/usr/bin/env python3
"""Ask a SegMed server whether it answers: healthcheck.py [URL]. Exits with 0 if it does, or says why not.

It asks for `/auth/`, which needs no login and reads no study. Certificates are not checked, because the
server is asked under the address of the machine and not under the name in its certificate.
"""

from __future__ import annotations

import json
import ssl
import sys
import urllib.request

_SECONDS = 8  # less than the time limit of the health check in the Dockerfile


def problem(url: str) -> str:
    """Why the server at `url` cannot be used; "" if it can."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # a proxy for the way out must not be asked for this machine
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(f"{url.rstrip('/')}/auth/", timeout=_SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as error:
        return f"{url} does not answer as a SegMed server: {error}"
    if not isinstance(found, dict) or "enabled" not in found:
        return f"{url} is another program, not a SegMed server."
    return ""


if __name__ == "__main__":
    reason = problem(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
    if reason:
        sys.exit(reason)
