"""Doors of connecting one's account on a cluster: the password, then what else the cluster asks."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from launcher import credential_state
from launcher.clusters import Cluster
from portal.accounts import connecting, proving, waiting
from portal.accounts.forms import AnswersForm, ConnectForm
from portal.accounts.requests import safe_next, signed_in_user
from portal.accounts.wording import connect_sentence, enrolment_sentence
from portal.addresses import address_of

_KEY = "connect_questions"
"""Where the web session keeps what waits for this browser's answers."""
_STATUS = {"sign_in.throttled": 429, "sign_in.cannot_count": 503}


@login_required
@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def connect(request: HttpRequest, cluster_id: str) -> HttpResponse:
    """Give the cluster's password."""
    cluster, form, status = _cluster_or_404(cluster_id), ConnectForm(request.POST or None), 200
    if request.method == "POST" and form.is_valid():
        try:
            trouble = connecting.connect(
                user=signed_in_user(request),
                cluster=cluster,
                password=form.cleaned_data["password"],
                web_session_key=request.session.session_key or "",
                address=address_of(request),
                target=safe_next(request),
            )
        except proving.AnswersWanted as wanted:
            return _ask(request, cluster, wanted)
        except proving.SignInRefused as error:
            form.add_error(None, connect_sentence(error.code))
            status = _STATUS.get(error.code, 422)
        else:
            if not trouble:
                return _connected(request, safe_next(request))
            form.add_error(None, enrolment_sentence(trouble))
    status = status if status != 200 or not form.errors else 422
    context = {"form": form, "cluster": cluster, "next": safe_next(request)}
    return render(request, "accounts/connect.html", context, status=status)


@login_required
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def questions(request: HttpRequest, cluster_id: str) -> HttpResponse:
    """What the cluster asks for beyond the password."""
    user, cluster, key = signed_in_user(request), _cluster_or_404(cluster_id), request.session.get(_KEY, "")
    held = waiting.find(key, waiting.Connects(user.pk, cluster.id))
    if held is None:
        return _begin_again(request, cluster, connect_sentence("sign_in.begin_again"))
    form = AnswersForm(request.POST if request.method == "POST" else None, asked=held.waiting.round)
    if request.method != "POST" or not form.is_valid():
        context = {"form": form, "words": held.waiting.round.words, "cluster": cluster}
        return render(request, "accounts/connect_questions.html", context, status=422 if form.errors else 200)
    session_key, address = request.session.session_key or "", address_of(request)
    try:
        trouble, target = connecting.answer(
            user=user, cluster=cluster, key=key, answers=form.answers, web_session_key=session_key, address=address
        )
    except proving.AnswersWanted as wanted:
        return _ask(request, cluster, wanted)
    except proving.SignInRefused as error:
        return _begin_again(request, cluster, connect_sentence(error.code))
    if trouble:
        return _begin_again(request, cluster, enrolment_sentence(trouble))
    return _connected(request, target)


def _cluster_or_404(cluster_id: str) -> Cluster:
    """Only a cluster on which there is something to connect."""
    cluster = credential_state.connectable().get(cluster_id)
    if cluster is None:
        raise Http404
    return cluster


def _ask(request: HttpRequest, cluster: Cluster, wanted: proving.AnswersWanted) -> HttpResponse:
    request.session[_KEY] = wanted.key
    return redirect("accounts:connect-questions", cluster_id=cluster.id)


def _begin_again(request: HttpRequest, cluster: Cluster, sentence: str) -> HttpResponse:
    request.session.pop(_KEY, None)
    messages.warning(request, sentence)
    return redirect("accounts:connect", cluster_id=cluster.id)


def _connected(request: HttpRequest, target: str) -> HttpResponse:
    request.session.pop(_KEY, None)
    messages.success(request, _("Your cluster account is connected. You can launch sessions now."))
    return redirect(target or "accounts:profile")
