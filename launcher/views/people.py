"""Doors of the administrators' page about people: shut somebody out, let them in again."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from launcher import leaving, selectors
from launcher.views.limits import administrator_or_404
from portal.accounts.models import User
from portal.addresses import address_of


def _back_to_the_list(request: HttpRequest) -> HttpResponse:
    """The page People, with the filter and the page that the form's address has from it."""
    return redirect(reverse("launcher:admin-users", query=request.GET))


def _person_or_404(pk: int, actor: User) -> User:
    """Somebody else than ``actor``."""
    person = selectors.people().filter(pk=pk).exclude(pk=actor.pk).first()
    if person is None:
        raise Http404
    return person


@login_required
@require_POST
def disable(request: HttpRequest, pk: int) -> HttpResponse:
    """All that this person has open closes; nobody may shut themselves out."""
    actor = administrator_or_404(request)
    person = _person_or_404(pk, actor)
    leaving.disable(user=person, actor=actor, address=address_of(request))
    messages.success(request, _("%(username)s is shut out. Sessions on the cluster run on.") % {"username": person})
    return _back_to_the_list(request)


@login_required
@require_POST
def enable(request: HttpRequest, pk: int) -> HttpResponse:
    """This person may sign in again."""
    actor = administrator_or_404(request)
    leaving.enable(user=_person_or_404(pk, actor), actor=actor, address=address_of(request))
    return _back_to_the_list(request)
