"""Doors to more time: Extend, and Continue in a new session. Both are their owner's alone."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from launcher import refusalwords, selectors
from launcher.flows.continuing import continue_session
from launcher.flows.extend import extend as extend_flow
from launcher.models import InteractiveSession
from launcher.services import ExtensionRefused, LaunchRefused
from launcher.views.sessions import session_for
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of


def _own_session(request: HttpRequest, session_id: str) -> InteractiveSession:
    return session_for(request, session_id, selectors.owns, denied="not_owner")


@login_required
@require_POST
def extend(request: HttpRequest, session_id: str) -> HttpResponse:
    """Let the session run longer. What came of it is on its page."""
    session, user = _own_session(request, session_id), signed_in_user(request)
    text = request.POST.get("walltime_seconds", "")
    seen = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
    try:
        extend_flow(session=session, user=user, address=address_of(request), seen_walltime_seconds=seen)
    except ExtensionRefused as refused:
        messages.warning(request, refusalwords.extension_sentence(refused.code, refused.params))
    else:
        session.refresh_from_db()
        if session.extending_to_seconds is None and not session.extension_refused:
            messages.success(request, _("The session has more time now."))
    return redirect("launcher:session", session_id=session.pk)


@login_required
@require_POST
def continue_(request: HttpRequest, session_id: str) -> HttpResponse:
    """Go on in a new session; the page shows that one, or the one that does already."""
    session = _own_session(request, session_id)
    try:
        session = continue_session(session=session, user=signed_in_user(request), address=address_of(request))
    except LaunchRefused as refused:
        messages.warning(request, refusalwords.launch_refusal(refused))
    return redirect("launcher:session", session_id=session.pk)
