"""The demo on one machine: every process of the portal and a demo cluster, their supervisor, and a
self-check.
"""
