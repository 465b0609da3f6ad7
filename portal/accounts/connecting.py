"""Connecting one's account on a cluster: somebody who is signed in gives the cluster's password, so that the portal can
act as them there.

For people who sign in without that password, whose sign-in therefore gives the portal nothing to act with, and for
everybody whose key was revoked or whose password is no longer kept. The account is always the one of who is signed in,
and the cluster alone judges. The password is all the proof that is asked for, and proves nothing else: nobody is signed
in by it, and it does not count where administrators are asked again who they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from launcher.clusters import Cluster
from launcher.flows import enrolment
from portal.accounts import proving
from portal.accounts.models import User
from portal.accounts.waiting import Connects
from portal.accounts.ways.base import Proved


def connect(
    *, user: User, cluster: Cluster, password: str, web_session_key: str, address: str, target: str = ""
) -> str:
    """Connect the account of ``user`` on ``cluster``. Returns the code of what went wrong on the cluster, or nothing.

    Raises SignInRefused, and AnswersWanted where the cluster asks for more than the password.
    """
    proved = proving.prove_password(
        username=user.username,
        password=password,
        address=address,
        target=target,
        connects=Connects(user.pk, cluster.id),
    )
    return _get_ready(user, cluster, proved, password, web_session_key, address)


def answer(
    *, user: User, cluster: Cluster, key: str, answers: Sequence[str], web_session_key: str, address: str
) -> tuple[str, str]:
    """Go on with what the cluster asked: the same code, and where the person wanted to go. Raises the same."""
    purpose = Connects(user.pk, cluster.id)
    proved, target = proving.answer(key=key, answers=answers, address=address, connects=purpose)
    return _get_ready(user, cluster, proved, "", web_session_key, address), target  # the password is gone by now


def _get_ready(user: User, cluster: Cluster, proved: Proved, password: str, web_session_key: str, address: str) -> str:
    if proved.identity.username != user.username:  # a cluster that ignores case, or has two names for one account
        raise proving.refused(
            user.username, address, way=proving.CONNECTING, cause="other_account", code="sign_in.wrong"
        )
    return enrolment.get_ready(
        cluster=cluster, user=user, password=password, web_session_key=web_session_key, address=address
    )
