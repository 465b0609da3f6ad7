"""How the API refuses: always JSON, ``{"code", "message", "fields"?}``, in the caller's language, never a
bare page.

``code`` is stable and for programs, ``message`` is for people. An error nobody foresaw is logged and answered
with 500 in the same shape; its text stays in the log.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import URLPattern, URLResolver
from django.utils.translation import gettext as _
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.parser import Parser

from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)


class ApiError(FootbridgeError):
    """A request that is answered with ``status``. ``message`` is the sentence for people; ``retry_seconds`` when it is
    worth to come again."""

    def __init__(self, status: int, code: str, message: str, *, retry_seconds: int = 0) -> None:
        super().__init__(code, code=code)
        self.status = status
        self.message = message
        self.retry_seconds = retry_seconds


class StrictParser(Parser):
    """JSON as RFC 8259 has it: no NaN, no Infinity, no name twice in one object."""

    def parse_body(self, request: HttpRequest) -> Any:
        """The body's value. Any exception becomes a 400."""
        return json.loads(request.body, parse_constant=_no_constant, object_pairs_hook=_no_twins)


class PortalAPI(NinjaAPI):
    """An API that answers with JSON on every path, whatever happens."""

    @property
    def urls(self) -> tuple[list[URLResolver | URLPattern], str, str]:
        """Django's patterns, each view behind ``_always_json``."""
        patterns, app_name, namespace = super().urls
        for pattern in patterns:
            if isinstance(pattern, URLPattern):
                pattern.callback = _always_json(pattern.callback)
        return patterns, app_name, namespace

    def set_default_exception_handlers(self) -> None:
        """Replaces the framework's answers by ours."""
        handlers: dict[type[Exception], Callable[..., HttpResponse]] = {
            Exception: _unforeseen,
            ApiError: _refusal,
            ValidationError: _invalid,
            HttpError: _http_error,
            AuthenticationError: _unauthenticated,
            Http404: lambda _request, _error: not_found(),
        }
        for kind, handler in handlers.items():
            self.add_exception_handler(kind, handler)


def problem(
    status: int,
    code: str,
    message: str,
    *,
    fields: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    **extra: object,
) -> JsonResponse:
    """The one shape of all refusals. ``fields``: ``{"field", "code", "message"}`` for each wrong value."""
    body: dict[str, object] = {"code": code, "message": message}
    if fields:
        body["fields"] = list(fields)
    return JsonResponse(body | extra, status=status, headers=headers)


def not_found() -> JsonResponse:
    """404, the same for what does not exist and for what is none of the caller's business."""
    return problem(404, "not_found", _("There is nothing here, or it is not yours."))


def _always_json(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = _unfit_body(request) or view(request, *args, **kwargs)
        except Http404:
            response = not_found()
        except Exception as error:
            response = _unforeseen(request, error)
        if response.status_code == 405:
            allowed = {"Allow": response.headers.get("Allow", "")}
            response = problem(405, "method_not_allowed", _("This cannot be done here."), headers=allowed)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    wrapped.csrf_exempt = True  # type: ignore[attr-defined]  # the check is in auth: it is for browsers only
    return wrapped


def _unfit_body(request: HttpRequest) -> JsonResponse | None:
    """The refusal of a body that is too large, of unknown length or no JSON, before a byte of it is read."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if not length and "HTTP_TRANSFER_ENCODING" in request.META:
        return problem(411, "body.length_required", _("Say how long the body is: send Content-Length."))
    if length.isdigit() and int(length) > (settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0):
        return problem(413, "body.too_large", _("This is more than the portal takes at once."))
    if length not in ("", "0") and request.content_type != "application/json":
        return problem(415, "body.not_json", _("Send JSON, with the header Content-Type: application/json."))
    return None


def _refusal(_request: HttpRequest, error: ApiError) -> JsonResponse:
    headers = {"Retry-After": str(error.retry_seconds)} if error.retry_seconds else None
    return problem(error.status, error.code, error.message, headers=headers)


def _unforeseen(request: HttpRequest, error: Exception) -> JsonResponse:
    log.error("api_failed", method=request.method, path=request.path, exc_info=error)
    return problem(500, "internal", _("Something went wrong in the portal. It has been noted. Try again later."))


def _unauthenticated(_request: HttpRequest, _error: AuthenticationError) -> JsonResponse:
    return problem(
        401,
        "not_signed_in",
        _("Sign in, or send a personal token that is valid: Authorization: Bearer fbp_…"),
        headers={"WWW-Authenticate": 'Bearer realm="api"'},
    )


def _http_error(_request: HttpRequest, error: HttpError) -> JsonResponse:
    """The framework's own refusals: a body that cannot be read, and a request forged in a browser."""
    if error.status_code == 403:
        return problem(403, "csrf", _("Send the X-CSRFToken header, or use a personal token."))
    return problem(error.status_code, "body.unreadable", _("The body is no JSON that the portal understands."))


def _invalid(_request: HttpRequest, error: ValidationError) -> JsonResponse:
    fields = [
        {
            "field": ".".join(str(part) for part in entry["loc"][2 if entry["loc"][0] == "body" else 1 :]),
            "code": f"request.{entry['type']}",
            "message": _sentence(entry["type"]),
        }
        for entry in error.errors
    ]
    return problem(422, "request.invalid", _("Some values need another look. Nothing was done."), fields=fields)


def _sentence(kind: str) -> str:
    """What to do about a mistake that the schema found; ``kind`` is pydantic's word for it."""
    sentences = {
        "missing": _("This is required."),
        "extra_forbidden": _("There is no such field."),
        "string_type": _("This must be text."),
        "string_too_long": _("This is too long."),
        "dict_type": _("This must be an object."),
        "model_attributes_type": _("This must be an object."),
        "bool_parsing": _("This must be true or false."),
        "int_parsing": _("This must be a whole number."),
    }
    return sentences.get(kind) or _("This value is not possible here.")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members
