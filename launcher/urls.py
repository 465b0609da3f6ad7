"""Addresses of the launcher's pages."""

from __future__ import annotations

from django.urls import path

from launcher import views

app_name = "launcher"
urlpatterns = [
    path("", views.home, name="home"),
    path("apps/<slug:app_id>/icon.svg", views.app_icon, name="app-icon"),
    path("launch/<slug:app_id>/", views.launch, name="launch"),
    path("history/", views.history, name="history"),
    path("sessions/cards/", views.cards, name="cards"),
    path("sessions/by-address/<slug:label>/", views.by_address, name="by-address"),
    path("sessions/<slug:session_id>/", views.session, name="session"),
    path("sessions/<slug:session_id>/live/", views.session_live, name="session-live"),
    path("sessions/<slug:session_id>/connect/", views.connect, name="connect"),
    path("sessions/<slug:session_id>/stop/", views.stop, name="stop"),
    path("administration/sessions/", views.all_sessions, name="admin-sessions"),
    path("administration/users/", views.users, name="admin-users"),
]
