"""Logs for people (text) or machines (JSON), through structlog. One processor redacts what must never be written."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import MutableMapping
from typing import Any

import structlog

_HIDDEN = ("password", "secret", "token", "cookie", "authorization", "private_key", "entry_code")


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every key that names a secret, and cut over-long values."""
    for key, value in event.items():
        if any(word in key.lower() for word in _HIDDEN):
            event[key] = "[hidden]"
        elif isinstance(value, str) and len(value) > 2000:
            event[key] = value[:2000] + "…"
    return event


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
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "all"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                # asyncssh writes user names and commands at INFO; ours say what matters
                "asyncssh": {"level": "WARNING"},
                "celery.app.trace": {"level": "WARNING"},
                "celery.worker.strategy": {"level": "WARNING"},  # "received", every second
                "celery.beat": {"level": "WARNING"},  # "sending", every second
                "uvicorn.access": {"level": "WARNING"},
            },
        }
    )
