"""Second steps at sign-in: codes from an app, passkeys, and recovery codes. The only writer of these records.

Secrets are sealed with the portal's keys, which are not in the database; recovery codes are random enough that their
SHA-256 is all the database needs. Guessing is held back for each person, whatever address it comes from.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from launcher import sealing
from portal.accounts import passkeys, throttle, totp
from portal.accounts.models import FactorKind, RecoveryCode, SecondFactor, User
from portal.audit import events
from portal.audit.services import record
from portal.clock import now
from portal.errors import FootbridgeError

MOST_FACTORS = 10
"""For each person."""
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10  # 80 random bits: SHA-256 alone is enough for what nobody can guess
TRIES = 5


class FactorRefused(FootbridgeError):
    """A second step that was not made. ``factor.wrong``, ``factor.throttled``, ``factor.name``, ``factor.too_many``."""

    code = "factor.wrong"


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody gave as the second step: a code (of an app, or a recovery code), or a passkey's answer."""

    code: str = ""
    passkey: str = ""
    passkey_state: passkeys.State | None = None


def of(user: User) -> QuerySet[SecondFactor]:
    """A person's second steps, oldest first."""
    return user.second_factors.order_by("created_at", "pk")


def has_any(user: User) -> bool:
    """Whether a second step is asked of ``user`` at sign-in."""
    return user.second_factors.exists()


def is_required_of(user: User) -> bool:
    """Whether the site wants ``user`` to have one."""
    wanted = settings.CONF.second_factor
    return wanted == "everybody" or (wanted == "administrators" and user.is_administrator)


def is_missing(user: User) -> bool:
    """Whether the site wants ``user`` to have a second step, and there is none."""
    return is_required_of(user) and not has_any(user)


def codes_left(user: User) -> int:
    """Recovery codes that were not used."""
    return user.recovery_codes.filter(used_at=None).count()


def known_passkeys(user: User) -> list[SecondFactor]:
    """A person's passkeys, in a fixed order."""
    return list(of(user).filter(kind=FactorKind.PASSKEY))


def public_halves(rows: list[SecondFactor]) -> list[bytes]:
    """What the passkeys' signatures are checked with."""
    return [base64.b64decode(sealing.unseal(row.secret_encrypted)) for row in rows]


def add_app(*, user: User, secret: str, code: str, name: str, address: str) -> list[str]:
    """Keep the app that shows ``code`` for ``secret``. Returns recovery codes when it is the first second step.

    Raises FactorRefused.
    """
    _take_try(user)
    step = totp.step_of(secret, code, seconds=now().timestamp())
    if step is None:
        raise FactorRefused
    return _add(user, FactorKind.TOTP, name, secret, address, last_step=step)


def add_passkey(*, user: User, state: passkeys.State, answer: str, name: str, address: str) -> list[str]:
    """Keep the passkey that was made. Returns recovery codes when it is the first. Raises FactorRefused or
    PasskeyRefused."""
    data, count = passkeys.made(state, answer)
    return _add(user, FactorKind.PASSKEY, name, base64.b64encode(data).decode(), address, sign_count=count)


def _add(
    user: User, kind: FactorKind, name: str, secret: str, address: str, *, last_step: int = 0, sign_count: int = 0
) -> list[str]:
    name = name.strip() or str(kind.label)
    if len(name) > 80 or not name.isprintable():
        raise FactorRefused(code="factor.name")
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        is_first = not has_any(user)
        if user.second_factors.count() >= MOST_FACTORS:
            raise FactorRefused(code="factor.too_many")
        SecondFactor.objects.create(
            user=user,
            kind=kind,
            name=name,
            secret_encrypted=sealing.seal(secret),
            last_step=last_step,
            sign_count=sign_count,
            created_at=now(),
        )
        record(events.SecondFactorAdded(kind=kind, name=name), actor=user.username, address=address)
        _forget_tries(user)
        return _new_codes(user) if is_first else []


def remove(*, user: User, pk: int, address: str) -> bool:
    """Take a second step away; with the last one the recovery codes go. False when there is none such."""
    with transaction.atomic():
        row = SecondFactor.objects.select_for_update(no_key=True).filter(pk=pk, user=user).first()
        if row is None:
            return False
        row.delete()
        if not has_any(user):
            user.recovery_codes.all().delete()
        record(events.SecondFactorRemoved(kind=row.kind, name=row.name), actor=user.username, address=address)
    return True


def reset(*, user: User, actor: str) -> int:
    """Take all second steps of somebody who lost them away. How many there were."""
    with transaction.atomic():
        count = user.second_factors.count()
        user.second_factors.all().delete()
        user.recovery_codes.all().delete()
        record(events.SecondFactorsReset(username=user.username, factors=count), actor=actor)
    _forget_tries(user)
    return count


def new_recovery_codes(*, user: User, address: str) -> list[str]:
    """Ten new codes, shown once; those of before are void."""
    with transaction.atomic():
        codes = _new_codes(user)
        record(events.RecoveryCodesMade(codes=len(codes)), actor=user.username, address=address)
    return codes


def _new_codes(user: User) -> list[str]:
    user.recovery_codes.all().delete()
    texts = [base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    RecoveryCode.objects.bulk_create([RecoveryCode(user=user, digest=_digest(text)) for text in texts])
    return ["-".join(re.findall("....", text)) for text in texts]


def _digest(text: str) -> str:
    return hashlib.sha256(re.sub(r"[\s-]", "", text).lower().encode(errors="replace")).hexdigest()


def prove(*, user: User, proof: Proof, address: str) -> str:
    """The kind of second step that was made: ``totp``, ``passkey`` or ``recovery``. Each code counts once.

    Raises FactorRefused; a wrong one is an audit event.
    """
    _take_try(user, address)
    with transaction.atomic():
        kind = (
            _by_passkey(user, proof) if proof.passkey else _by_app(user, proof.code) or _by_recovery(user, proof.code)
        )
        if kind == "recovery":
            record(events.RecoveryCodeUsed(left=codes_left(user)), actor=user.username, address=address)
    if not kind:
        with transaction.atomic():
            event = events.UserSignInRefused(way="passkey" if proof.passkey else "second_step", cause="code")
            record(event, actor=user.username, address=address)
        raise FactorRefused
    _forget_tries(user)
    return kind


def _by_app(user: User, code: str) -> str:
    for row in of(user).filter(kind=FactorKind.TOTP):
        secret = sealing.unseal(row.secret_encrypted)
        step = totp.step_of(secret, code, seconds=now().timestamp(), after=row.last_step)
        # only one of two racing requests with the same code moves the step on
        rows = SecondFactor.objects.filter(pk=row.pk, last_step__lt=step or 0)
        if step is not None and rows.update(last_step=step, last_used_at=now()):
            return "totp"
    return ""


def _by_recovery(user: User, code: str) -> str:
    unused = user.recovery_codes.filter(digest=_digest(code), used_at=None)
    return "recovery" if unused.update(used_at=now()) else ""


def _by_passkey(user: User, proof: Proof) -> str:
    rows = known_passkeys(user)
    if proof.passkey_state is None or not rows:
        return ""
    try:
        used = passkeys.used(proof.passkey_state, proof.passkey, public_halves(rows))
    except passkeys.PasskeyRefused:
        return ""
    row = rows[used.index]
    if used.sign_count or row.sign_count:  # one that counts must have counted on: else there is a copy of it
        rows_before = SecondFactor.objects.filter(pk=row.pk, sign_count__lt=used.sign_count)
        return "passkey" if rows_before.update(sign_count=used.sign_count, last_used_at=now()) else ""
    SecondFactor.objects.filter(pk=row.pk).update(last_used_at=now())
    return "passkey"


def _tries(user: User) -> throttle.Counter:
    return throttle.counter("second-step", str(user.pk), TRIES)


def _take_try(user: User, address: str = "") -> None:
    """Count a try before it is judged, so that many at once do not all pass. Raises FactorRefused."""
    try:
        attempt = throttle.take(_tries(user))
    except throttle.ThrottleAway as error:
        raise FactorRefused(code=error.code) from error
    if attempt.granted:
        return
    if attempt.is_first_refusal:
        with transaction.atomic():
            record(events.UserSignInRefused(way="second_step", cause="throttled"), actor=user.username, address=address)
    raise FactorRefused(code="factor.throttled")


def _forget_tries(user: User) -> None:
    throttle.forget(_tries(user))
