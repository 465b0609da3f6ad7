"""Addresses of signing in and of the profile."""

from __future__ import annotations

from django.urls import path

from portal.accounts import connect_views, factor_views, openid_views, question_views, session_views, views

app_name = "accounts"
urlpatterns = [
    path("sign-in/", views.sign_in, name="sign-in"),
    path("sign-in/second-step/", factor_views.second_step, name="second-step"),
    path("sign-in/questions/", question_views.questions, name="questions"),
    path("sign-in/openid/", openid_views.begin, name="openid-begin"),
    path("sign-in/openid/answer/", openid_views.answer, name="openid-answer"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("profile/", views.profile, name="profile"),
    path("profile/notices/", views.notices, name="notices"),
    path("profile/tokens/", views.token_create, name="token-create"),
    path("profile/tokens/<int:pk>/revoke/", views.token_revoke, name="token-revoke"),
    path("confirm/", factor_views.confirm, name="confirm"),
    path("profile/second-steps/app/", factor_views.add_app, name="add-app"),
    path("profile/second-steps/passkey/", factor_views.add_passkey, name="add-passkey"),
    path("profile/second-steps/codes/", factor_views.new_codes, name="recovery-codes"),
    path("profile/second-steps/<int:pk>/remove/", factor_views.remove, name="factor-remove"),
    path("profile/browsers/<int:pk>/sign-out/", session_views.sign_out_one, name="browser-sign-out"),
    path("profile/browsers/sign-out-everywhere/", session_views.sign_out_everywhere, name="sign-out-everywhere"),
    path("profile/keys/<int:pk>/revoke/", views.key_revoke, name="key-revoke"),
    path("profile/clusters/<slug:cluster_id>/connect/", connect_views.connect, name="connect"),
    path("profile/clusters/<slug:cluster_id>/connect/questions/", connect_views.questions, name="connect-questions"),
    path("language/", views.language, name="language"),
]
