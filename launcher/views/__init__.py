"""Doors of the launcher's pages: parse, call one service or selector, render."""
