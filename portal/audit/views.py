"""Doors of the audit log, for auditors and administrators. For everybody else these pages do not exist."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from portal import clock
from portal.accounts import reauthentication
from portal.accounts.models import User
from portal.addresses import address_of
from portal.audit import selectors, services
from portal.audit.chain import Link
from portal.audit.export import FORMATS
from portal.audit.filters import AuditFilter
from portal.audit.models import AuditEvent

View = Callable[[HttpRequest, User], HttpResponseBase]


def _auditors_only(view: View) -> Callable[[HttpRequest], HttpResponseBase]:
    """The view gets the auditor. Others are sent to sign in, or told that there is no such page; that is
    kept.
    """

    @login_required
    @never_cache
    @require_GET
    @functools.wraps(view)
    def guarded(request: HttpRequest) -> HttpResponseBase:
        user = request.user
        if isinstance(user, User) and user.may_audit:
            return view(request, user)
        services.record_denied(page=request.path, actor=user.get_username(), address=address_of(request))
        raise Http404

    return guarded


@_auditors_only
def audit_list(request: HttpRequest, _auditor: User) -> HttpResponse:
    """One page of the log, newest first."""
    filters = AuditFilter(request.GET)
    before = request.GET.get("before", "")
    page = selectors.page(
        filters.chosen, before=int(before) if _is_row_number(before) else None, by_time=filters.has_days
    )
    context = {
        "events": page.rows,
        "filter": filters,
        "next_cursor": page.next_cursor,
        "chain": selectors.chain_state(),
    }
    return render(request, "audit/list.html", context)


@_auditors_only
def export(request: HttpRequest, auditor: User) -> HttpResponseBase:
    """The rows that the filters leave, as a file. The export is itself an event, recorded before the first
    byte.
    """
    reauthentication.require(request)
    file_format = request.GET.get("format", "csv")
    filters = AuditFilter(request.GET)
    if file_format not in FORMATS or not filters.is_valid():
        return HttpResponse(_("This format or filter is not known."), status=400, content_type="text/plain")
    up_to = services.record_export(
        events=filters.chosen, file_format=file_format, actor=auditor.username, address=address_of(request)
    )
    content_type, first_line, as_text = FORMATS[file_format]
    response = StreamingHttpResponse(_stream(filters.chosen, up_to, first_line, as_text), content_type=content_type)
    name = f"footbridge-audit-{clock.now():%Y%m%d-%H%M%S}.{file_format}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


async def _stream(
    events: QuerySet[AuditEvent], up_to: int, first_line: str, as_text: Callable[[Iterable[Link]], str]
) -> AsyncIterator[str]:
    """The file in pieces; never more of it in memory than one batch."""
    if first_line:
        yield first_line
    batches = selectors.batches(events, up_to=up_to)
    while links := await sync_to_async(_next_of)(batches):
        yield as_text(links)


def _next_of(batches: Iterator[list[Link]]) -> list[Link]:
    """The next batch; an empty list at the end, since StopIteration cannot cross threads."""
    return next(batches, [])


def _is_row_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
