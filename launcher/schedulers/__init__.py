"""Adapters that speak a scheduler's dialect: pure pairs of "build the command" and "read the answer"."""

from launcher.schedulers.registry import adapter

__all__ = ["adapter"]
