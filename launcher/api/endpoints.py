"""The API's endpoints: parse, call one service or selector, answer."""

from __future__ import annotations

import re

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from ninja import Query, Status

from launcher import refusalwords, selectors, services
from launcher.api import schemas
from launcher.api.answers import ApiError, PortalAPI, StrictParser, not_found, problem
from launcher.api.auth import BrowserAuth, TokenAuth, caller_of, writer_of
from launcher.entitlements import entitlement_of
from launcher.flows.continuing import continue_session
from launcher.flows.extend import extend
from launcher.flows.launch import default_cluster, launch
from launcher.models import InteractiveSession
from launcher.parts import apps
from launcher.services import ExtensionRefused, LaunchRefused
from portal.accounts import reauthentication
from portal.accounts.models import User
from portal.addresses import address_of

MOST_AT_ONCE = 200

api = PortalAPI(
    title="Footbridge",
    version="1",
    description=(
        "Launch, watch and stop interactive sessions. Sign in with a browser, or send a personal token that "
        "you made on your profile page: `Authorization: Bearer fbp_…`. "
        "Every refusal has the shape of `Problem`."
    ),
    urls_namespace="api",
    auth=[TokenAuth(), BrowserAuth()],
    parser=StrictParser(),
)

REFUSALS = {401: schemas.Problem, 403: schemas.Problem, 404: schemas.Problem}


@api.get("/apps", response={200: schemas.AppList, 401: schemas.Problem}, summary="Apps that can be launched")
def list_apps(request: HttpRequest) -> schemas.AppList:
    """What the catalogue offers."""
    return schemas.AppList(apps=[schemas.app_out(app) for app in apps().values()])


@api.get(
    "/apps/{app_id}",
    response={200: schemas.AppDetail, 401: schemas.Problem, 404: schemas.Problem},
    summary="One app with its form",
)
def show_app(request: HttpRequest, app_id: str) -> schemas.AppDetail:
    """The fields of the launch form, their defaults, and the caller's limits in each queue."""
    app = apps().get(app_id)
    if app is None:
        raise Http404
    cluster = default_cluster()
    most_hours = entitlement_of(caller_of(request).user, app, cluster).hours
    return schemas.app_detail(app, cluster, most_hours=most_hours)


@api.get(
    "/sessions",
    response={200: schemas.SessionList, 401: schemas.Problem, 403: schemas.Problem, 422: schemas.Problem},
    summary="Sessions",
)
def list_sessions(
    request: HttpRequest,
    ended: bool = False,
    everybody: bool = False,
    owner: str = Query("", max_length=150),  # type: ignore[type-arg]  # how the framework spells a query parameter
    cluster: str = Query("", max_length=64),  # type: ignore[type-arg]  # likewise
    after: str = Query("", max_length=64),  # type: ignore[type-arg]  # likewise
    limit: int = Query(50, ge=1, le=MOST_AT_ONCE),  # type: ignore[type-arg]  # likewise
) -> schemas.SessionList:
    """The caller's live sessions, or with `ended=true` the ended ones, page by page. For auditors and administrators,
    `everybody=true` lists those of all people, and `owner` and `cluster` narrow that down."""
    user = caller_of(request).user
    if everybody:
        if not user.may_audit:
            raise ApiError(
                403, "session.own_only", _("Only auditors and administrators may list everybody's sessions.")
            )
        rows = selectors.everybodys_history() if ended else selectors.everybodys_live_sessions()
        return _session_page(selectors.narrowed(rows, owner=owner, cluster=cluster), ended, after, limit)
    if not ended:
        return schemas.SessionList(
            sessions=[schemas.session_out(session) for session in selectors.live_sessions(user)], next=None
        )
    return _session_page(selectors.history(user), ended, after, limit)


def _session_page(rows: selectors.Sessions, ended: bool, after: str, limit: int) -> schemas.SessionList:
    """One page of rows that are sorted by their end or, live ones, by their beginning, newest first."""
    if after:
        known = rows if ended else InteractiveSession.objects.all()  # a live one may have ended since
        last = known.filter(pk=after).first() if _is_session_id(after) else None
        if last is None:
            raise ApiError(422, "request.after", _("“after” must be the “next” of the page before."))
        if ended:
            before = Q(ended_at__lt=last.ended_at) | Q(pk__lt=last.pk)
            rows = rows.filter(before, ended_at__lte=last.ended_at)  # said by itself, it leads into the index
        else:
            rows = rows.filter(Q(created_at__lt=last.created_at) | Q(created_at=last.created_at, pk__lt=last.pk))
    found = list(rows[: limit + 1])
    return schemas.SessionList(
        sessions=[schemas.session_out(session) for session in found[:limit]],
        next=found[limit - 1].pk if len(found) > limit else None,
    )


@api.post(
    "/sessions",
    response={
        201: schemas.SessionOut,
        401: schemas.Problem,
        403: schemas.Problem,
        409: schemas.LimitProblem,
        422: schemas.Problem,
        503: schemas.Problem,
    },
    summary="Launch a session",
)
def launch_session(request: HttpRequest, response: HttpResponse, body: schemas.LaunchIn) -> Status[schemas.SessionOut]:
    """The same checks as the form's. 409 with the session that is in the way when a limit is reached."""
    user = writer_of(request)
    session = launch(user=user, app_id=body.app, raw=body.values, address=address_of(request))
    response.headers["Location"] = f"{request.path.rstrip('/')}/{session.pk}"
    return Status(201, schemas.session_out(session))


@api.get("/sessions/{session_id}", response={200: schemas.SessionOut, **REFUSALS}, summary="One session")
def show_session(request: HttpRequest, session_id: str) -> schemas.SessionOut:
    """The caller's own session; auditors and administrators see everybody's."""
    return schemas.session_out(_visible(request, caller_of(request).user, session_id))


@api.delete("/sessions/{session_id}", response={202: schemas.SessionOut, **REFUSALS}, summary="Stop a session")
def delete_session(request: HttpRequest, session_id: str) -> Status[schemas.SessionOut]:
    """Ask for the session's end. It has ended when its state says so; its record stays."""
    return _stop(request, session_id)


@api.post("/sessions/{session_id}/stop", response={202: schemas.SessionOut, **REFUSALS}, summary="Stop a session")
def stop_session(request: HttpRequest, session_id: str) -> Status[schemas.SessionOut]:
    """The same as DELETE, for clients that have no DELETE."""
    return _stop(request, session_id)


@api.post(
    "/sessions/{session_id}/extend",
    response={200: schemas.SessionOut, 202: schemas.SessionOut, 409: schemas.Problem, 422: schemas.Problem, **REFUSALS},
    summary="Extend a session",
)
def extend_session(
    request: HttpRequest, session_id: str, body: schemas.ExtendIn | None = None
) -> Status[schemas.SessionOut]:
    """Let the session run longer, as far as the site's rules go. 202: asked for, the cluster has not answered yet.
    409: not possible now, or refused by the cluster; `code` says why."""
    user, session = _own(request, session_id)
    seen = body.walltime_seconds if body is not None else None
    extend(session=session, user=user, address=address_of(request), seen_walltime_seconds=seen)
    session.refresh_from_db()
    if session.extension_refused:
        raise ApiError(409, session.extension_refused, refusalwords.extension_sentence(session.extension_refused, {}))
    return Status(200 if session.extending_to_seconds is None else 202, schemas.session_out(session))


@api.post(
    "/sessions/{session_id}/continue",
    response={201: schemas.SessionOut, 409: schemas.LimitProblem, 422: schemas.Problem, **REFUSALS},
    summary="Continue in a new session",
)
def continue_in_new_session(request: HttpRequest, session_id: str) -> Status[schemas.SessionOut]:
    """Launch a session with the same settings that goes on with this one's work; this one runs on. The same one is
    answered when there is one already."""
    user, session = _own(request, session_id)
    further = continue_session(session=session, user=user, address=address_of(request))
    return Status(201, schemas.session_out(further))


@api.api_operation(
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], "/{path:rest}", auth=None, include_in_schema=False
)
def unknown_path(request: HttpRequest, rest: str) -> HttpResponse:
    """Whatever else is asked for below ``/api/v1/``."""
    return not_found()


@api.exception_handler(LaunchRefused)
def launch_refused(request: HttpRequest, refused: Exception) -> JsonResponse:
    """Why a launch was refused: 409 at a limit, 403 where nothing is allowed, 503 when the cluster could not be asked,
    else 422."""
    if not isinstance(refused, LaunchRefused):
        raise TypeError("this handler is for refused launches")
    message = refusalwords.refusal_sentence(refused.code, refused.params)
    if refused.existing is not None:
        return problem(
            409, refused.code, message, session=schemas.session_out(refused.existing).model_dump(mode="json")
        )
    fields = [
        {"field": field, "code": code, "message": refusalwords.mistake_sentence(code, params)}
        for field, code, params in refused.fields
    ]
    if refused.code == "app.unknown":
        fields = [{"field": "app", "code": refused.code, "message": message}]
    status = {
        "launch.none_allowed": 403,
        "launch.cluster_away": 503,
        "launch.host_key_changed": 503,
        "continue.not_running": 409,
    }.get(refused.code, 422)
    return problem(status, refused.code, message, fields=fields)


@api.exception_handler(ExtensionRefused)
def extension_refused(request: HttpRequest, refused: Exception) -> JsonResponse:
    """Why the site's rules allow no extension now."""
    if not isinstance(refused, ExtensionRefused):
        raise TypeError("this handler is for refused extensions")
    return problem(409, refused.code, refusalwords.extension_sentence(refused.code, refused.params))


def _own(request: HttpRequest, session_id: str) -> tuple[User, InteractiveSession]:
    """The caller and their own session. Raises Http404 otherwise, also for those who may see it; the attempt is
    kept."""
    user = writer_of(request)
    session = _visible(request, user, session_id)
    if not selectors.owns(user, session):
        _note_denied(request, user, session, "not_owner")
        raise Http404
    return user, session


def _stop(request: HttpRequest, session_id: str) -> Status[schemas.SessionOut]:
    user = writer_of(request)
    session = _visible(request, user, session_id)
    if not selectors.may_stop(user, session):
        _note_denied(request, user, session, "may_not_stop")
        raise ApiError(403, "session.not_yours", _("You may see this session, but not stop it."))
    is_program = "Authorization" in request.headers  # then it came by a token: a web session does not count beside one
    if session.owner_id != user.pk and not is_program and not reauthentication.is_recent(request.session):
        raise ApiError(403, "confirm.wanted", _("Prove again that it is you on the portal's pages, then try again."))
    services.request_stop(session=session, actor=user, address=address_of(request))
    session.refresh_from_db()
    return Status(202, schemas.session_out(session))


def _visible(request: HttpRequest, user: User, session_id: str) -> InteractiveSession:
    """The session, if ``user`` may see it. Raises Http404 otherwise; an attempt on somebody's session is
    kept.
    """
    session = selectors.find(session_id) if _is_session_id(session_id) else None
    if session is None:
        raise Http404
    if not selectors.may_see(user, session):
        _note_denied(request, user, session, "stranger")
        raise Http404
    return session


def _note_denied(request: HttpRequest, user: User, session: InteractiveSession, cause: str) -> None:
    services.record_access_denied(
        session_id=session.pk, username=user.username, door="api", cause=cause, address=address_of(request)
    )


def _is_session_id(text: str) -> bool:
    """Whether ``text`` can be the id of a session at all; what cannot is not asked of the database."""
    return re.fullmatch(r"[a-z0-9]{1,16}", text) is not None
