"""Tells Django about the launcher."""

from django.apps import AppConfig


class LauncherConfig(AppConfig):
    name = "launcher"
