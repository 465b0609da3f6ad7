"""The API at ``/api/v1/``: what the pages can do, for programs. A door: it parses, calls one service, and
answers JSON.

``answers`` words what goes wrong, ``auth`` says who asks, ``schemas`` says what is sent back, ``endpoints``
is the rest.
"""

from launcher.api.endpoints import api

__all__ = ["api"]
