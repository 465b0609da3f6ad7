"""Celery's doors to the flows. A message carries one id (of a session, a cluster or a notice) and nothing else."""

from __future__ import annotations

from celery import shared_task
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache import cache

from launcher import dispatch, grants, services
from launcher.figures import WORKER_SEEN, WORKER_SEEN_SECONDS
from launcher.flows import activity as activity_flow
from launcher.flows import cancel as cancel_flow
from launcher.flows import cleanup as cleanup_flow
from launcher.flows import enrolment
from launcher.flows import extend as extend_flow
from launcher.flows import mail as mail_flow
from launcher.flows import poll as poll_flow
from launcher.flows import remind as remind_flow
from launcher.flows import submit as submit_flow
from launcher.parts import clusters
from portal.accounts import web_sessions
from portal.clock import now

POLL_EXPIRES_SECONDS = 30


@shared_task(name="launcher.submit", ignore_result=True)
def submit(session_id: str) -> None:
    """Submit the session's job."""
    submit_flow.submit(session_id)


@shared_task(name="launcher.cancel", ignore_result=True)
def cancel(session_id: str) -> None:
    """Cancel the session's job."""
    cancel_flow.cancel(session_id)


@shared_task(name="launcher.extend", ignore_result=True)
def extend(session_id: str) -> None:
    """Ask again for an extension whose answer was lost."""
    extend_flow.ask_again(session_id)


@shared_task(name="launcher.poll", ignore_result=True)
def poll(cluster_id: str) -> None:
    """One poll round of one cluster."""
    poll_flow.poll(cluster_id)


@shared_task(name="launcher.look_around", ignore_result=True)
def look_around(cluster_id: str) -> None:
    """Look whether this cluster's sessions are used."""
    activity_flow.look_around(cluster_id)


@shared_task(name="launcher.tick", ignore_result=True)
def tick() -> None:
    """Beat's message of every second: start the rounds that are due."""
    cache.set(WORKER_SEEN, now(), WORKER_SEEN_SECONDS)
    for cluster_id in clusters():
        if dispatch.poll_is_due(cluster_id):
            dispatch.poll_again_in(cluster_id, POLL_EXPIRES_SECONDS)  # one message at a time is enough
            poll.apply_async(args=[cluster_id], expires=POLL_EXPIRES_SECONDS)
        if dispatch.look_is_due(cluster_id):
            dispatch.look_again_in(cluster_id, POLL_EXPIRES_SECONDS)
            look_around.apply_async(args=[cluster_id], expires=POLL_EXPIRES_SECONDS)
    services.record_clusters_gone(set(clusters()))
    services.end_without_cluster(set(clusters()))


@shared_task(name="launcher.clean_up", ignore_result=True)
def clean_up() -> None:
    """Remove what has been kept long enough: expired sign-ins and grants, and session folders."""
    SessionStore.clear_expired()
    grants.delete_expired()
    web_sessions.delete_expired()
    services.drop_expired_passwords()
    cleanup_flow.clean_up()


@shared_task(name="launcher.mail", ignore_result=True)
def mail(notice_id: int) -> None:
    """Send one notice by e-mail."""
    mail_flow.mail(notice_id)


@shared_task(name="launcher.remind", ignore_result=True)
def remind() -> None:
    """Beat's message of every few seconds: warn owners of ends to come, and take up mail that is due."""
    remind_flow.warn_of_ends()
    remind_flow.take_up_mail()


@shared_task(name="launcher.remove_key_lines", ignore_result=True)
def remove_key_lines() -> None:
    """Take the lines of revoked keys out of people's files, where that has not been possible so far."""
    enrolment.remove_lines()
