"""A web process as a site has it, the front and the real proxy, for tests that end it: run by uvicorn, configured by
the environment as ``tests.bench.site`` is. TEST_DRAIN_SECONDS is the portal's setting of that name.
"""

from __future__ import annotations

import os

from tests.bench import site
from tests.integration.draining_application import Front, pages

application = Front(
    pages=pages, proxy=site.make(), hosts=["portal"], drain_seconds=float(os.environ["TEST_DRAIN_SECONDS"])
)
