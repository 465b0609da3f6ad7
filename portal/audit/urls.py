"""Addresses of the audit log."""

from django.urls import path

from portal.audit import views

app_name = "audit"
urlpatterns = [
    path("", views.audit_list, name="list"),
    path("export/", views.export, name="export"),
]
