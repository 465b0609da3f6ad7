"""The portal's addresses."""

from __future__ import annotations

from django.urls import include, path

from launcher.api import api
from portal.health import health

urlpatterns = [
    path("", include("launcher.urls")),
    path("", include("portal.accounts.urls")),
    path("audit/", include("portal.audit.urls")),
    path("api/v1/", api.urls),
    path("health/", health, name="health"),
]

handler400 = "portal.errors_views.bad_request"
handler403 = "portal.errors_views.forbidden"
handler404 = "portal.errors_views.not_found"
