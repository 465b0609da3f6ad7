"""``manage.py doctor``: checks portal and clusters from top to bottom, also where Django cannot start."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from launcher.doctor.findings import Finding, broken, one_line, skipped
from launcher.doctor.portal import BEFORE_DJANGO
from launcher.doctor.report import Report
from launcher.doctor.runner import examine
from portal.words import Words
from portal.words import marked as _

HELP = (
    "Check settings, processes and clusters, and say what to do about what is wrong. "
    "Exit status 0: all is fine, 1: something is doubtful, 2: something is broken."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("cluster", nargs="?", default="", help="only this cluster of the clusters file; else all")
    parser.add_argument(
        "--as",
        dest="account",
        default="",
        metavar="USER",
        help="the account to sign in with; else the cluster's operator, or the first of PORTAL_ADMINISTRATORS",
    )
    parser.add_argument("--job", action="store_true", help="also submit a tiny job and cancel it: a place in the queue")
    parser.add_argument("--portal", action="store_true", help="leave the clusters out")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")


def main(arguments: Sequence[str]) -> int:
    """The command without Django's help: it may not start."""
    parser = argparse.ArgumentParser(prog="manage.py doctor", description=HELP)
    add_arguments(parser)
    options = parser.parse_args(arguments)
    return run(
        sys.stdout,
        cluster=options.cluster,
        account=options.account,
        with_job=options.job,
        only_portal=options.portal,
        as_json=options.json,
    )


def run(stream: TextIO, *, cluster: str, account: str, with_job: bool, only_portal: bool, as_json: bool) -> int:
    """Check everything and show it. Returns the exit status."""
    report = Report(stream, as_json=as_json)
    report.head("The portal")
    report.add(examine(BEFORE_DJANGO, None))
    problem = _django_problem(report.findings)
    if problem is not None:
        report.add([problem])
        return report.end()
    from launcher.doctor import plan

    report.add(plan.check_portal_further())
    if not only_portal and plan.is_usable(report.findings, "portal.clusters"):
        _check_clusters(report, cluster, account, with_job=with_job)
    return report.end()


def _django_problem(findings: Sequence[Finding]) -> Finding | None:
    """What keeps us from going on; ``None``: Django is set up now."""
    name = Words(_("Everything else"))
    if any(finding.outcome == "broken" for finding in findings):
        return Finding("portal.rest", name, skipped(_("It needs “%(what)s” first."), what=Words(_("The settings"))))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    try:
        import django

        django.setup()
    except Exception as error:  # whatever a setting does to Django; it is told
        return Finding(
            "portal.django",
            name,
            broken(
                _("Django does not start: %(kind)s: %(words)s"),
                _("Correct the setting that is named; if none is, install the portal's dependencies anew."),
                kind=type(error).__name__,
                words=one_line(error),
            ),
        )
    logging.disable(logging.CRITICAL)  # the findings say it, for people
    return None


def _check_clusters(report: Report, only: str, account: str, *, with_job: bool) -> None:
    from launcher.doctor import plan
    from launcher.parts import clusters
    from portal.conf import conf

    if only and only not in clusters():
        unknown = broken(
            _("There is no cluster “%(name)s” in the clusters file."),
            _("Name one of these: %(known)s."),
            name=only,
            known=", ".join(clusters()),
        )
        report.add([Finding("cluster.id", Words(_("The cluster")), unknown)])
        return
    for cluster in clusters().values():
        if only in ("", cluster.id):
            user = plan.account_for(cluster, account, conf().administrators)
            report.head(f"{cluster.name} ({cluster.id}){', as ' + user if user else ''}")
            report.add(plan.check_cluster(cluster, user, with_job=with_job))
