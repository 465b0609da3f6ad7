"""The files of the pages, as a site serves them: collected, not from their sources."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import AsyncClient
from pytest_django import Settings

STYLES = "vendor/bootstrap/bootstrap.min.css"


@pytest.fixture
def collected(tmp_path: Path, settings: Settings) -> Path:
    """A folder with the collected files, which are served."""
    settings.STATIC_ROOT, settings.SERVESTATIC_USE_FINDERS = str(tmp_path), False
    call_command("collectstatic", interactive=False, verbosity=0)
    return tmp_path


async def test_a_browser_that_takes_compressed_files_gets_them(collected: Path) -> None:
    answer = await AsyncClient().get(f"/static/{STYLES}", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    sent = b"".join([part async for part in answer.streaming_content])
    assert len(sent) < 50_000
    assert gzip.decompress(sent) == (collected / STYLES).read_bytes()
