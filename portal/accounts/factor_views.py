"""Doors of second steps: making them at sign-in, proving again who one is, and keeping them on the profile page."""

from __future__ import annotations

import base64

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from launcher import sealing
from portal.accounts import entering, factors, passkeys, proving, reauthentication, totp
from portal.accounts.forms import AppForm, ConfirmForm, NameForm, SecondStepForm
from portal.accounts.models import User
from portal.accounts.requests import safe_next, signed_in_user
from portal.accounts.ways import password_ways, redirecting_ways
from portal.accounts.wording import factor_sentence, sign_in_sentence
from portal.addresses import address_of

_NEW_SECRET = "new_app_secret"
_NEW_PASSKEY = "new_passkey_state"


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def second_step(request: HttpRequest) -> HttpResponse:
    """The second page of the sign-in."""
    if request.user.is_authenticated:  # by another tab, meanwhile
        return redirect(settings.LOGIN_REDIRECT_URL)
    waiting = entering.pending(request)
    if waiting is None:
        return redirect("accounts:sign-in")
    form = SecondStepForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            entering.second_step(request, waiting, **form.cleaned_data)
        except factors.FactorRefused as error:
            form.add_error(None, factor_sentence(error.code))
        else:
            return redirect(waiting.target or settings.LOGIN_REDIRECT_URL)
    context = {"form": form, "passkey_options": entering.passkey_question(request, waiting.user)}
    return render(request, "accounts/second_step.html", context, status=422 if form.errors else 200)


@login_required
@never_cache
@sensitive_post_parameters("password", "code")
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest) -> HttpResponse:
    """Who administers proves again who they are, then goes back to where they were."""
    user, target = signed_in_user(request), safe_next(request)
    has_second_step = factors.has_any(user)
    form = _confirm_form(request, has_second_step=has_second_step)
    if form and request.method == "POST" and form.is_valid():
        try:
            _confirm(request, user, form.cleaned_data)
        except factors.FactorRefused as error:
            form.add_error(None, factor_sentence(error.code))
        except proving.SignInRefused as error:
            form.add_error(None, sign_in_sentence(error.code))
        else:
            return redirect(target or settings.LOGIN_REDIRECT_URL)
    context = {
        "form": form,
        "next": target,
        "redirecting": [] if has_second_step else redirecting_ways(settings.CONF),
        "passkey_options": entering.passkey_question(request, user) if has_second_step else "",
    }
    return render(request, "accounts/confirm.html", context, status=422 if form and form.errors else 200)


def _confirm_form(request: HttpRequest, *, has_second_step: bool) -> SecondStepForm | ConfirmForm | None:
    """What there is to type: the second step where there is one, else the password where that is a way to sign in."""
    if has_second_step:
        return SecondStepForm(request.POST or None)
    return ConfirmForm(request.POST or None) if password_ways(settings.CONF) else None


def _confirm(request: HttpRequest, user: User, values: dict[str, str]) -> None:
    if "password" in values:
        proving.confirm_password(user=user, password=values["password"], address=address_of(request))
    else:
        kind = entering.prove(request, user, **values)
        proving.record_confirmed(user=user, way=kind, address=address_of(request))
    reauthentication.note_proof(request.session)


def second_steps_of(user: User) -> dict[str, object]:
    """What the profile page shows of second steps."""
    return {
        "second_steps": list(factors.of(user)),
        "codes_left": factors.codes_left(user),
        "second_step_required": factors.is_required_of(user),
    }


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def add_app(request: HttpRequest) -> HttpResponse:
    """Show a new secret; keep it once the app has shown a right code."""
    user = signed_in_user(request)
    reauthentication.require(request)
    form = AppForm(request.POST or None)
    secret = _new_secret(request)
    if request.method == "POST" and form.is_valid():
        try:
            codes = factors.add_app(user=user, secret=secret, address=address_of(request), **form.cleaned_data)
        except factors.FactorRefused as error:
            form.add_error(None, factor_sentence(error.code))
        else:
            del request.session[_NEW_SECRET]
            return _added(request, codes)
    address = totp.address_of_secret(secret, account=user.username, issuer=settings.CONF.site_name)
    context = {"form": form, "secret": secret, "qr": totp.qr_code(address), "required": factors.is_missing(user)}
    return render(request, "accounts/add_app.html", context, status=422 if form.errors else 200)


def _new_secret(request: HttpRequest) -> str:
    """The secret that this page offers, the same until it is used. Sealed: web sessions lie in the database."""
    sealed = request.session.get(_NEW_SECRET)
    if sealed:
        return sealing.unseal(base64.b64decode(sealed))
    secret = totp.new_secret()
    request.session[_NEW_SECRET] = base64.b64encode(sealing.seal(secret)).decode()
    return secret


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def add_passkey(request: HttpRequest) -> HttpResponse:
    """Have the browser make a passkey. The one page here that needs JavaScript."""
    user = signed_in_user(request)
    reauthentication.require(request)
    form = NameForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        state = request.session.pop(_NEW_PASSKEY, None) or {}
        values = form.cleaned_data
        try:
            codes = factors.add_passkey(
                user=user, state=state, answer=values["passkey"], name=values["name"], address=address_of(request)
            )
        except (factors.FactorRefused, passkeys.PasskeyRefused) as error:
            form.add_error(None, factor_sentence(error.code))
        else:
            return _added(request, codes)
    known = factors.public_halves(factors.known_passkeys(user))
    question = passkeys.ask_to_make(user_id=user.pk, username=user.username, known=known)
    request.session[_NEW_PASSKEY] = question.state
    context = {"form": form, "passkey_options": question.options, "required": factors.is_missing(user)}
    return render(request, "accounts/add_passkey.html", context, status=422 if form.errors else 200)


def _added(request: HttpRequest, codes: list[str]) -> HttpResponse:
    messages.success(request, _("From now on the sign-in asks for it."))
    return _show_codes(request, codes) if codes else redirect("accounts:profile")


def _show_codes(request: HttpRequest, codes: list[str]) -> HttpResponse:
    response = render(request, "accounts/recovery_codes.html", {"codes": codes})
    response.headers["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def new_codes(request: HttpRequest) -> HttpResponse:
    """New recovery codes, shown this once."""
    user = signed_in_user(request)
    reauthentication.require(request)
    if not factors.has_any(user):
        return redirect("accounts:profile")
    return _show_codes(request, factors.new_recovery_codes(user=user, address=address_of(request)))


@login_required
@require_POST
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a second step away."""
    reauthentication.require(request)
    if factors.remove(user=signed_in_user(request), pk=pk, address=address_of(request)):
        messages.success(request, _("Removed."))
    return redirect("accounts:profile")
