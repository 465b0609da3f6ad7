"""Addresses of the launcher's pages."""

from __future__ import annotations

from django.urls import path

from launcher.views import administration, check_up, limits, more_time, notices, pages, people, sessions, visits

app_name = "launcher"
urlpatterns = [
    path("", pages.home, name="home"),
    path("apps/<slug:app_id>/icon.svg", pages.app_icon, name="app-icon"),
    path("launch/<slug:app_id>/", pages.launch, name="launch"),
    path("notices/", notices.notices, name="notices"),
    path("history/", pages.history, name="history"),
    path("sessions/cards/", pages.cards, name="cards"),
    path("sessions/by-address/<slug:label>/", sessions.by_address, name="by-address"),
    path("sessions/<slug:session_id>/", sessions.session, name="session"),
    path("sessions/<slug:session_id>/live/", sessions.session_live, name="session-live"),
    path("sessions/<slug:session_id>/connect/", sessions.connect, name="connect"),
    path("sessions/<slug:session_id>/keep/", sessions.keep, name="keep"),
    path("sessions/<slug:session_id>/stop/", sessions.stop, name="stop"),
    path("sessions/<slug:session_id>/give-up/", sessions.give_up, name="give-up"),
    path("sessions/<slug:session_id>/open-as-user/", visits.open_as_user, name="open-as-user"),
    path("sessions/<slug:session_id>/visits/<int:pk>/end/", visits.end, name="visit-end"),
    path("sessions/<slug:session_id>/extend/", more_time.extend, name="extend"),
    path("sessions/<slug:session_id>/continue/", more_time.continue_, name="continue"),
    path("administration/sessions/", administration.all_sessions, name="admin-sessions"),
    path("administration/clusters/", administration.clusters, name="admin-clusters"),
    path("administration/check-up/", check_up.check_up, name="admin-check-up"),
    path("administration/users/", administration.users, name="admin-users"),
    path("administration/users/<int:pk>/disable/", people.disable, name="admin-user-disable"),
    path("administration/users/<int:pk>/enable/", people.enable, name="admin-user-enable"),
    path("administration/limits/", limits.limits, name="admin-limits"),
    path("administration/limits/<int:allowance_id>/remove/", limits.remove, name="admin-limit-remove"),
]
