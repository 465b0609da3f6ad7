"""Addresses of signing in and of the profile."""

from __future__ import annotations

from django.urls import path

from portal.accounts import session_views, views

app_name = "accounts"
urlpatterns = [
    path("sign-in/", views.sign_in, name="sign-in"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("profile/", views.profile, name="profile"),
    path("profile/notices/", views.notices, name="notices"),
    path("profile/tokens/", views.token_create, name="token-create"),
    path("profile/tokens/<int:pk>/revoke/", views.token_revoke, name="token-revoke"),
    path("profile/browsers/<int:pk>/sign-out/", session_views.sign_out_one, name="browser-sign-out"),
    path("profile/browsers/sign-out-everywhere/", session_views.sign_out_everywhere, name="sign-out-everywhere"),
    path("language/", views.language, name="language"),
]
