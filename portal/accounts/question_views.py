"""The door of a sign-in that the cluster has stopped with questions: show them, take the answers, go on."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from portal.accounts import proving, services, thresholds, waiting
from portal.accounts.forms import AnswersForm
from portal.accounts.wording import sign_in_sentence
from portal.addresses import address_of

_KEY = "sign_in_questions"
"""Where the web session keeps which sign-in waits for this browser."""


def ask(request: HttpRequest, wanted: proving.AnswersWanted) -> HttpResponse:
    """On to the page with the questions. Only this browser can answer them."""
    request.session[_KEY] = wanted.key
    return redirect("accounts:questions")


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def questions(request: HttpRequest) -> HttpResponse:
    """The questions, and what comes of the answers."""
    if request.user.is_authenticated:  # by another tab, meanwhile
        return redirect(settings.LOGIN_REDIRECT_URL)
    key = request.session.get(_KEY, "")
    held = waiting.find(key)
    if held is None:
        return _begin_again(request, "sign_in.begin_again")
    form = AnswersForm(request.POST if request.method == "POST" else None, asked=held.waiting.round)
    if request.method != "POST" or not form.is_valid():
        context = {"form": form, "words": held.waiting.round.words}
        return render(request, "accounts/questions.html", context, status=422 if form.errors else 200)
    try:
        proved, target = proving.answer(key=key, answers=form.answers, address=address_of(request))
        first = services.admit(proved=proved, address=address_of(request))
    except proving.AnswersWanted as wanted:
        return ask(request, wanted)
    except proving.SignInRefused as error:
        request.session.pop(_KEY, None)
        if error.code == "sign_in.not_allowed":
            return thresholds.not_allowed(request, error)
        return _begin_again(request, error.code)
    request.session.pop(_KEY, None)
    return thresholds.enter(request, first, password="", target=target)  # it is gone by now


def _begin_again(request: HttpRequest, code: str) -> HttpResponse:
    messages.warning(request, sign_in_sentence(code))
    return redirect("accounts:sign-in")
