"""Doors of administrators' visits: give a reason and go in; end one."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from launcher import selectors, services
from launcher.services import VisitRefused
from launcher.views.sessions import begin, note_denied, session_for, session_or_404
from launcher.visit_forms import ReasonForm
from portal.accounts import reauthentication
from portal.accounts.requests import signed_in_user
from portal.addresses import address_of


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def open_as_user(request: HttpRequest, session_id: str) -> HttpResponse:
    """The form that asks for a reason; sent, the way into the session."""
    session = session_for(request, session_id, selectors.may_visit, denied="may_not_visit")
    user = signed_in_user(request)
    reauthentication.require(request)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            services.open_as_user(session=session, actor=user, address=address_of(request), **form.cleaned_data)
        except VisitRefused as refused:
            form.refuse(refused)
        else:
            return begin(session, selectors.opening_page(session))
    context = {"form": form, "session": session, "minutes": services.VISIT_MINUTES}
    return render(request, "launcher/open_as_user.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def end(request: HttpRequest, session_id: str, pk: int) -> HttpResponse:
    """End a visit."""
    session, user = session_or_404(request, session_id), signed_in_user(request)
    visit = session.visits.filter(pk=pk).first()
    if visit is None or not selectors.may_end_visit(user, visit):
        note_denied(request, session, "may_not_end_visit")
        raise Http404
    services.end_visit(visit=visit, actor=user, address=address_of(request))
    return redirect("launcher:session", session_id=session.pk)
