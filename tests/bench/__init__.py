"""Figures of the proxy beside its peers: ``make bench``."""
