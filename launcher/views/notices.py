"""Door of what a person's open pages tell."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from launcher import selectors
from launcher.noticewords import notice_text, subject
from portal.accounts.requests import signed_in_user

RECENT_SECONDS = 600
"""What is older is no news; a page in the background asks at least once a minute."""


@login_required
@never_cache
@require_GET
def notices(request: HttpRequest) -> HttpResponse:
    """What this person was told of their own sessions lately, in the page's language, oldest first."""
    told = []
    for notice in selectors.recent_notices(signed_in_user(request), seconds=RECENT_SECONDS):
        text = notice_text(notice)
        told.append(
            {
                "id": notice.pk,
                "kind": notice.kind,
                "title": subject(notice),
                "before": text.before,
                "at": text.at,
                "after": text.after,
                "url": reverse("launcher:session", args=[notice.session_id]),
            }
        )
    return JsonResponse({"notices": told})
