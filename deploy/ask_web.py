"""The web container's health check: asks ``/health/`` under the portal's own host name; exit code 0 when well."""

from __future__ import annotations

import http.client
import os
import sys
from urllib.parse import urlsplit


def main() -> int:
    """Ask once."""
    port = int(os.environ.get("PORTAL_PORT", "8000"))
    host = urlsplit(os.environ.get("PORTAL_URL", "")).netloc or f"localhost:{port}"
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        link.request("GET", "/health/", headers={"Host": host})
        return 0 if link.getresponse().status == 200 else 1
    except OSError:
        return 1
    finally:
        link.close()


if __name__ == "__main__":
    sys.exit(main())
