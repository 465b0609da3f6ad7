"""Doors of the accounts pages: parse, call one service, render."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import BACKEND_SESSION_KEY
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from launcher import credential_state, leaving
from launcher.flows import enrolment
from portal.accounts import proving, question_views, services, thresholds, tokens, web_sessions
from portal.accounts.factor_views import second_steps_of
from portal.accounts.forms import NoticesForm, PreferencesForm, SignInForm, TokenForm
from portal.accounts.requests import safe_next, signed_in_user
from portal.accounts.session_views import browsers_of
from portal.accounts.ways import password_ways, redirecting_ways
from portal.accounts.wording import enrolment_sentence, sign_in_sentence, token_sentence
from portal.addresses import address_of

_STATUS = {"sign_in.throttled": 429, "sign_in.cannot_count": 503}


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """The sign-in page."""
    if request.user.is_authenticated:
        return redirect(safe_next(request) or settings.LOGIN_REDIRECT_URL)
    form = SignInForm(request.POST or None)
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            proved = proving.prove_password(**form.cleaned_data, address=address_of(request), target=safe_next(request))
            first = services.admit(proved=proved, address=address_of(request))
        except proving.AnswersWanted as wanted:
            return question_views.ask(request, wanted)
        except proving.SignInRefused as error:
            if error.code == "sign_in.not_allowed":
                return thresholds.not_allowed(request, error)
            form.add_error(None, sign_in_sentence(error.code))
            status = _STATUS.get(error.code, 200)
        else:
            password = form.cleaned_data["password"]
            return thresholds.enter(request, first, password=password, target=safe_next(request))
    context = {
        "form": form if password_ways(settings.CONF) else None,
        "redirecting": redirecting_ways(settings.CONF),
        "next": safe_next(request),
    }
    return render(request, "accounts/sign_in.html", context, status=status)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """Sign out; every notebook opened from this browser is closed."""
    if request.user.is_authenticated and request.session.get(BACKEND_SESSION_KEY):
        user = signed_in_user(request)
        leaving.sign_out(user=user, here=web_sessions.find(request.session, user), address=address_of(request))
    return thresholds.signed_out(request)


@login_required
def profile(request: HttpRequest) -> HttpResponse:
    """Preferences and personal tokens."""
    user = signed_in_user(request)
    initial = {"language": user.language, "time_zone": user.time_zone}
    preferences = PreferencesForm(request.POST or None, initial=initial)
    if request.method == "POST" and preferences.is_valid():
        services.set_preferences(user=user, **preferences.cleaned_data)
        messages.success(request, _("Saved."))
        return redirect("accounts:profile")
    return _profile_page(request, preferences=preferences)


def _profile_page(
    request: HttpRequest,
    *,
    preferences: PreferencesForm | None = None,
    notices_form: NoticesForm | None = None,
    token_form: TokenForm | None = None,
    new_token: str = "",
) -> HttpResponse:
    user = signed_in_user(request)
    initial = {"language": user.language, "time_zone": user.time_zone}
    context = {
        "preferences": preferences or PreferencesForm(initial=initial),
        "notices_form": notices_form or NoticesForm(user=user),
        "token_form": token_form or TokenForm(),
        "tokens": tokens.tokens_of(user),
        "accounts": credential_state.accounts_of(user.username),
        "keys": credential_state.keys_of(user),
        "new_token": new_token,
        "browsers": browsers_of(request),
        **second_steps_of(user),
    }
    response = render(request, "accounts/profile.html", context)
    if new_token:
        response.headers["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def notices(request: HttpRequest) -> HttpResponse:
    """What this person is told, and how."""
    user = signed_in_user(request)
    form = NoticesForm(request.POST, user=user)
    if not form.is_valid():
        return _profile_page(request, notices_form=form)
    services.set_notices(user=user, **form.choices_of(user))
    messages.success(request, _("Saved."))
    return redirect("accounts:profile")


@login_required
@require_POST
def token_create(request: HttpRequest) -> HttpResponse:
    """A new personal token, shown this once."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _profile_page(request, token_form=form)
    user = signed_in_user(request)
    try:
        made = tokens.create_token(user=user, actor=user, address=address_of(request), **form.cleaned_data)
    except tokens.TokenError as error:
        form.add_error(None, token_sentence(error.code))
        return _profile_page(request, token_form=form)
    return _profile_page(request, new_token=made.text)


@login_required
@require_POST
def token_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a personal token back."""
    tokens.revoke_token(user=signed_in_user(request), pk=pk, address=address_of(request))
    return redirect("accounts:profile")


@login_required
@require_POST
def key_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a key on a cluster back."""
    outcome = enrolment.revoke(user=signed_in_user(request), key_id=pk, address=address_of(request))
    if outcome == "revoked":
        messages.success(request, enrolment_sentence(outcome))
    elif outcome:
        messages.warning(request, enrolment_sentence(outcome))
    return redirect("accounts:profile")


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """Switch the language on this browser, and for good where somebody is signed in."""
    chosen = request.POST.get("language", "")
    response = redirect(safe_next(request) or settings.LOGIN_REDIRECT_URL)
    if chosen in dict(settings.LANGUAGES):
        response.set_cookie(
            settings.LANGUAGE_COOKIE_NAME,
            chosen,
            max_age=365 * 24 * 3600,
            samesite="Lax",
            secure=settings.CONF.is_https,
            httponly=True,
        )
        if request.user.is_authenticated:
            user = signed_in_user(request)
            services.set_preferences(user=user, language=chosen, time_zone=user.time_zone)
    return response
