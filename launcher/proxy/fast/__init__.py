"""The fast lane: what a request or WebSocket costs less when the web server's own protocol class lends a hand.

``protocol`` and ``socket`` are uvicorn's protocol classes and offer an ASGI extension each; ``pump`` and ``tunnel`` use
them. The application decides everything as before, and takes the portable lane where nothing is offered.
"""
