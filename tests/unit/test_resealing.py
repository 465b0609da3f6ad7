"""``manage.py rotatekeys``: after it, the newest key alone opens every secret."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import models

from launcher import sealing
from launcher.models import EnrolledKey, InteractiveSession, KeptPassword
from launcher.services.resealing import SEALED
from portal.accounts.models import SecondFactor, User
from portal.clock import now

pytestmark = pytest.mark.django_db


class Keys:
    """The files that ``PORTAL_ENCRYPTION_KEY_FILES`` would name, newest first."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encryption_key_paths: tuple[Path, ...] = ()
        self._folder = folder
        monkeypatch.setattr(sealing.settings, "CONF", self)

    def use(self, *names: str) -> None:
        for name in names:
            path = self._folder / name
            if not path.exists():
                path.write_bytes(Fernet.generate_key())
        self.encryption_key_paths = tuple(self._folder / name for name in names)
        sealing._fernet.cache_clear()


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    yield Keys(tmp_path, monkeypatch)
    sealing._fernet.cache_clear()


def secrets_of_all_kinds() -> None:
    InteractiveSession.objects.create(
        username="alice", cluster="hpc", app="jupyter", created_at=now(), secret_encrypted=sealing.seal("one")
    )
    EnrolledKey.objects.create(
        username="alice", cluster="hpc", created_at=now(), private_key_encrypted=sealing.seal("two")
    )
    KeptPassword.objects.create(
        username="alice",
        cluster="hpc",
        cache_key="x",
        key_encrypted=sealing.seal("three"),
        created_at=now(),
        expires_at=now(),
    )
    SecondFactor.objects.create(
        user=User.objects.create(username="alice", password="!"),
        kind="totp",
        name="phone",
        secret_encrypted=sealing.seal("four"),
        created_at=now(),
    )


def test_the_newest_key_alone_opens_every_secret_afterwards(keys: Keys) -> None:
    keys.use("old")
    secrets_of_all_kinds()
    keys.use("new", "old")
    out = io.StringIO()
    call_command("rotatekeys", stdout=out)
    keys.use("new")
    values = [sealing.unseal(getattr(model._default_manager.get(), column)) for model, column in SEALED]
    assert values == ["one", "two", "three", "four"]
    assert "Sealed 4 secrets" in out.getvalue()


def test_a_wiped_secret_stays_empty(keys: Keys) -> None:
    keys.use("new")
    InteractiveSession.objects.create(username="alice", cluster="hpc", app="jupyter", created_at=now())
    call_command("rotatekeys", stdout=io.StringIO())
    assert bytes(InteractiveSession.objects.get().secret_encrypted) == b""


def test_a_secret_without_its_key_is_told_and_the_others_are_sealed(keys: Keys) -> None:
    keys.use("lost")
    secrets_of_all_kinds()
    keys.use("old")
    EnrolledKey.objects.update(private_key_encrypted=sealing.seal("two"))
    keys.use("new", "old")
    with pytest.raises(CommandError, match="3 secrets"):
        call_command("rotatekeys", stdout=io.StringIO())
    keys.use("new")
    assert sealing.unseal(EnrolledKey.objects.get().private_key_encrypted) == "two"


def test_no_sealed_column_is_forgotten() -> None:
    columns = {
        (model, field.name)
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.BinaryField)
    }
    assert columns == set(SEALED)
