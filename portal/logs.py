"""Logs for people (text) or machines (JSON), through structlog. One processor redacts what must never be written.

What libraries write for each request of anybody (a page that does not exist, a handshake that is refused) is held back
by filters: it would fill the disk at a stranger's will, and shows addresses and cookies.
"""

from __future__ import annotations

import contextlib
import logging
import logging.config
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from portal.sparselog import SparseLog

_HIDDEN = ("password", "secret", "token", "cookie", "authorization", "private_key", "entry_code")


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every key that names a secret, and cut over-long values."""
    for key, value in event.items():
        if any(word in key.lower() for word in _HIDDEN):
            event[key] = "[hidden]"
        elif isinstance(value, str) and len(value) > 2000:
            event[key] = value[:2000] + "…"
    return event


_OF_THE_SERVER = frozenset(("uvicorn", "lifespan", "supervisors"))
"""Folders of uvicorn whose modules tell of the process and not of a request."""


class Sparse(logging.Filter):
    """Warnings that anybody can cause: each kind is written once a minute with a count, errors pass as they are.

    What a warning ends with is a path, the visitor's own words, and is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told = SparseLog(logging.getLogger(__name__), level=logging.WARNING)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        text = str(record.msg)
        if isinstance(record.args, tuple) and record.args:
            with contextlib.suppress(TypeError, ValueError):  # it ends with a number: then all values are left out
                text %= (*record.args[:-1], "…")
        self._told.note(f"{record.name}: {text}")
        return False


class OfTheServer(Sparse):
    """Of uvicorn's lines those about the process; of those about requests only what went wrong."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return Path(record.pathname).parent.name in _OF_THE_SERVER
        return super().filter(record)


def configure_logs(*, log_format: str, level: str) -> None:
    """Send structlog and the standard library's loggers to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    # structlog's own choice of traceback prints every variable, passwords among them
    text = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = structlog.processors.JSONRenderer() if log_format == "json" else text
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "all": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        *([structlog.processors.format_exc_info] if log_format == "json" else []),
                        renderer,
                    ],
                }
            },
            "filters": {"sparse": {"()": Sparse}, "of_the_server": {"()": OfTheServer}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "all"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                # asyncssh writes user names and commands at INFO; ours say what matters
                "asyncssh": {"level": "WARNING"},
                "celery.app.trace": {"level": "WARNING"},
                "celery.worker.strategy": {"level": "WARNING"},  # "received", every second
                "celery.beat": {"level": "WARNING"},  # "sending", every second
                "uvicorn": {"propagate": True},  # uvicorn's own handler is taken away: all lines look alike
                "uvicorn.access": {"level": "WARNING"},
                "uvicorn.error": {"filters": ["of_the_server"]},
                "django.request": {"filters": ["sparse"]},
                "django.security": {"filters": ["sparse"]},
                "django.security.csrf": {"filters": ["sparse"]},
                "django.channels.server": {"filters": ["sparse"]},
            },
        }
    )
