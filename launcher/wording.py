"""The sentences people read for the codes that the pure parts use. The only place that knows both.

A code without a sentence gets a general one; a test makes sure that no code of ours is without.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _

from launcher.allowances import Scope
from launcher.catalog import LaunchChoices
from launcher.models import InteractiveSession
from launcher.services import LaunchRefused
from launcher.states import EndReason, SessionState


def translated(texts: Mapping[str, str]) -> str:
    """The text in the reader's language, else in English."""
    language = (get_language() or "en").lower()
    return texts.get(language) or texts.get(language.split("-")[0]) or texts["en"]


def joined(*sentences: str) -> str:
    """Sentences one after the other, with a space between them where the language has one; empty ones are left out."""
    return functools.reduce(
        lambda first, second: _("%(first)s %(second)s") % {"first": first, "second": second},
        [sentence for sentence in sentences if sentence] or [""],
    )


def state_label(state: SessionState) -> str:
    """A state in a word or two."""
    return {
        SessionState.SUBMITTING: _("Sending"),
        SessionState.QUEUED: _("Waiting"),
        SessionState.STARTING: _("Starting"),
        SessionState.READY: _("Ready"),
        SessionState.STOPPING: _("Stopping"),
        SessionState.ENDED: _("Ended"),
    }[state]


def memory_text(mib: int) -> str:
    """``4 GB`` or ``512 MB``."""
    return f"{mib / 1024:.10g} GB" if mib >= 1024 and mib % 128 == 0 else f"{mib} MB"


def duration_text(seconds: int) -> str:
    """``2 hours``, ``1 h 30 min`` or ``45 minutes``."""
    hours, minutes = divmod(max(0, seconds) // 60, 60)
    if hours and minutes:
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    if hours:
        return ngettext("%(count)d hour", "%(count)d hours", hours) % {"count": hours}
    return ngettext("%(count)d minute", "%(count)d minutes", minutes) % {"count": minutes}


def environment_text(choices: LaunchChoices) -> str:
    """Which environment was chosen."""
    if choices.image:
        return choices.image.rsplit("/", 1)[-1]
    if choices.environment_value:
        return choices.environment_value
    return _("Site default")


def settings_rows(session: InteractiveSession) -> list[tuple[str, str]]:
    """What was asked for, as rows of a table."""
    choices = LaunchChoices.from_dict(session.choices)
    rows = [
        (_("Environment"), environment_text(choices)),
        (_("Cores"), str(choices.cores)),
        (_("Memory"), memory_text(choices.memory_mib)),
        (_("Time"), duration_text(choices.walltime_seconds)),
    ]
    if choices.gpus:
        rows.append((_("GPUs"), str(choices.gpus)))
    rows += [
        (_("Queue"), choices.queue or _("The cluster's default")),
        (_("Working folder"), choices.folder or _("Your home folder")),
    ]
    return rows


def sign_in_again_sentence(session: InteractiveSession) -> str:
    """Nothing can be known of a session, since the portal may not act as its owner any more."""
    if SessionState(session.state) is SessionState.SUBMITTING:
        return _("It has not been sent to the cluster yet. Sign out and in again so that the portal can do it.")
    return _("Sign out and in again so that the portal can look. The session itself is not affected.")


def end_sentence(session: InteractiveSession) -> str:
    """Why a session ended, in one sentence."""
    return _end(session)[0]


def end_cure(session: InteractiveSession) -> str:
    """What to do about it; empty where nothing needs doing."""
    return _end(session)[1]


def _end(session: InteractiveSession) -> tuple[str, str]:
    sentences = end_sentences()
    found = sentences.get(session.end_code) or sentences.get(f"ended.{session.end_reason}")
    if found is None:
        found = sentences["ended.failed"]
    params: dict[str, object] = dict(session.end_params)
    subject = params.get("subject") or params.get("module") or params.get("path") or ""
    values = Blank({"by": session.stop_requested_by, "exit_status": session.exit_status, **params, "subject": subject})
    return found[0] % values, found[1] % values


class Blank(dict[str, object]):
    """Parameters where a missing one reads as nothing."""

    def __missing__(self, key: str) -> str:
        return ""


def end_sentences() -> dict[str, tuple[str, str]]:
    """What happened and what to do about it, by code."""
    ask_less = _("Ask for less, or choose another queue, and launch again.")
    see_log = _("The end of its log says more.")
    return {
        f"ended.{EndReason.STOPPED_BY_USER}": (_("You stopped it."), ""),
        f"ended.{EndReason.STOPPED_BY_ADMIN}": (
            _("An administrator (%(by)s) stopped it."),
            _("Ask them before you launch again."),
        ),
        f"ended.{EndReason.IDLE}": (_("It was not used for a while, so it was stopped."), _("Launch again any time.")),
        f"ended.{EndReason.COMPLETED}": (_("Jupyter was shut down."), ""),
        f"ended.{EndReason.WALLTIME}": (
            _("The time you asked for was used up."),
            _("Launch again with more hours. Save your notebooks before the time is over."),
        ),
        f"ended.{EndReason.OUT_OF_MEMORY}": (
            _("It used more memory than you asked for."),
            _("Launch again with more memory."),
        ),
        f"ended.{EndReason.FAILED}": (_("Something inside the session failed."), see_log),
        f"ended.{EndReason.NODE_FAILED}": (
            _("The computer it ran on failed."),
            _("Launch again; it will get another one."),
        ),
        f"ended.{EndReason.LOST}": (
            _("The cluster does not know this session any more."),
            _("Launch again. If it happens often, tell the administrators."),
        ),
        f"ended.{EndReason.SUBMIT_REJECTED}": (_("The cluster refused this session."), ask_less),
        "ended.deleted_outside": (
            _("It was deleted on the cluster, outside this portal."),
            _("If it was not you, ask the administrators."),
        ),
        "ended.exit": (_("It ended with the status %(exit_status)s."), see_log),
        "ended.module_missing": (
            _("The module “%(subject)s” does not exist on the cluster."),
            _("Choose another environment and launch again."),
        ),
        "ended.module_command_missing": (
            _("The computer it ran on has no environment modules."),
            _("Choose the site's default environment, or tell the administrators."),
        ),
        "ended.not_started": (
            _("The cluster could not start it."),
            _("Launch again. If it happens again, ask the administrators."),
        ),
        "ended.preempted": (_("The cluster needed its place for somebody else."), _("Launch again.")),
        "ended.cpu_time": (
            _("The computing time that the cluster allows for one session was used up."),
            _("Launch again with fewer cores or for a shorter time."),
        ),
        "ended.killed": (_("It was killed on the computer it ran on (signal %(signal)s)."), see_log),
        "ended.files_missing": (
            _("The computer it ran on cannot read your home folder."),
            _("Tell the administrators: the session's folder was not readable there."),
        ),
        "ended.config_failed": (
            _("Jupyter refused the portal's settings and did not start."),
            _("Choose another environment. The log says more."),
        ),
        "ended.environment_missing": (
            _("The environment “%(subject)s” was not found."),
            _("Check its path and launch again."),
        ),
        "ended.image_missing": (_("The container image was not found."), _("Choose another image and launch again.")),
        "ended.runtime_missing": (
            _("The computer has neither apptainer nor singularity."),
            _("Tell the administrators, or use the app without a container."),
        ),
        "ended.jupyter_missing": (
            _("There is no Jupyter in this environment."),
            _("Install jupyterlab into it, or choose another environment."),
        ),
        "ended.jupyter_too_old": (
            _("The Jupyter of this environment is too old."),
            _("Update it, or choose another environment."),
        ),
        "ended.folder_missing": (_("The working folder was not found."), _("Check the folder and launch again.")),
        "ended.port_in_use": (_("Jupyter could not get a port on its computer."), _("Launch again.")),
        "ended.disk_full": (_("Your home folder is full."), _("Delete what you do not need, then launch again.")),
        "ended.bad_shell": (
            _("Your login shell on the cluster could not be started."),
            _("Check the shell and its start-up files, or ask the administrators."),
        ),
        "ended.output_failed": (
            _("The cluster could not write the session's log."),
            _("Check that your home folder is not full and can be written to."),
        ),
        "ended.app_gone": (_("This app is no longer offered."), _("Choose another app.")),
        "ended.cluster_gone": (
            _("The portal no longer serves the cluster it was on."),
            _("If the job still runs, stop it on the cluster."),
        ),
        "ended.given_up": (
            _("The cluster could not be asked about it for a week, so it was given up."),
            _("If the job still runs, stop it on the cluster."),
        ),
        "ended.given_up_by_admin": (
            _("The cluster could not be asked about it, so an administrator gave it up."),
            _("If the job still runs, stop it on the cluster."),
        ),
        "ssh.login_refused": (
            _("The cluster did not let the portal in with your account."),
            _("Launch again later. If it happens again, ask the administrators."),
        ),
        "ssh.not_enrolled": (
            _("The portal has no key of yours for the cluster any more."),
            _("Sign out and in again with your cluster password, then launch again."),
        ),
        "ssh.no_password": (
            _("You signed out before the session was sent."),
            _("Sign in again, then launch again."),
        ),
        "ssh.password_expired": (
            _("The cluster wants you to choose a new password first."),
            _("Sign in to it once by SSH, then launch again."),
        ),
        "secret.no_key": (
            _("The portal lost the key of this session before it was sent."),
            _("Launch again. If it happens again, tell the administrators."),
        ),
        "jobscript.invalid": (
            _("The app's job script cannot be used with these values."),
            _("Choose other values, or tell the administrators."),
        ),
        "file.missing": (
            _("Your home folder was not found on the cluster."),
            _("Sign in to the cluster once by SSH. If that does not help, ask the administrators."),
        ),
        "start_timeout": (
            _("Jupyter did not answer in time, so the session was stopped."),
            _("Launch again. If it happens again, try the site's default environment."),
        ),
        "scheduler.not_permitted": (
            _("The cluster does not let your account do this."),
            _("Ask the administrators; the details say what the cluster answered."),
        ),
        "file.full": (
            _("Your home folder is full, so the session could not be prepared."),
            _("Delete what you do not need, then launch again."),
        ),
        "file.denied": (
            _("The session's folder could not be written."),
            _("Check the permissions of your home folder."),
        ),
        "file.failed": (
            _("The session's folder could not be written."),
            _("Check that your home folder is not full and can be written to."),
        ),
        "scheduler.rejected.unknown_queue": (_("The cluster does not know this queue."), _("Choose another queue.")),
        "scheduler.rejected.queue_disabled": (
            _("This queue takes no new sessions at the moment."),
            _("Choose another queue, or try later."),
        ),
        "scheduler.rejected.not_authorized": (
            _("Your account may not use this queue."),
            _("Choose another queue, or ask the administrators."),
        ),
        "scheduler.rejected": (_("The cluster refused this session."), ask_less),
        "scheduler.rejected.bad_value": (_("The cluster did not accept one of the values."), ask_less),
        "scheduler.rejected.bad_script": (
            _("The cluster did not accept the session's script."),
            _("Tell the administrators. The details say what the cluster answered."),
        ),
        "scheduler.rejected.over_limit": (_("The cluster refused it: more than a limit allows."), ask_less),
        "scheduler.rejected.never_fits": (_("No computer of this queue has what you asked for."), ask_less),
        "scheduler.rejected.too_many_queued": (
            _("You already have as many jobs on the cluster as you may."),
            _("Wait until one has ended, then launch again."),
        ),
    }


def mistake_sentence(code: str, params: Mapping[str, object]) -> str:
    """What is wrong with one value of a launch, and what to write instead."""
    values = Blank(params)
    amount = values.get("max")
    if isinstance(amount, int) and code in ("memory.too_much", "memory.no_computer"):
        values["max"] = memory_text(amount)
    sentences = {
        "choices.not_an_object": _("Send the values as an object of names and values."),
        "cores.too_many": _("At most %(max)s cores are possible here."),
        "cores.too_few": _("At least %(min)s core is needed."),
        "memory.not_an_amount": _("This is not an amount of memory. Write for example 4 GB or 512 MB."),
        "memory.too_much": _("At most %(max)s are possible here."),
        "memory.too_little": _("Jupyter needs at least %(min)s MB."),
        "hours.over_allowance": _("Your sessions may last at most %(max)s hours."),
        "hours.none_allowed": _("This needs at least %(min)s hours, but your sessions may last at most %(max)s."),
        "hours.over_queue_limit": _("The queue %(queue)s allows at most %(max)s hours."),
        "hours.too_many": _("At most %(max)s hours are possible here."),
        "hours.too_few": _("At least %(min)s hours are needed."),
        "gpus.too_many": _("At most %(max)s GPUs are possible here."),
        "gpus.too_few": _("This cannot be less than %(min)s."),
        "gpus.none": _("This queue has no GPUs."),
        "queue.takes_no_jobs": _("This queue takes no new sessions at the moment. Choose another one, or try later."),
        "cores.no_computer": _("No computer of the cluster has more than %(max)s cores."),
        "memory.no_computer": _("No computer of the cluster has more than %(max)s of memory."),
        "gpus.no_computer": _("No computer of the cluster has more than %(max)s GPUs."),
        "cores.no_computer_together": _(
            "No computer of the cluster has all of this at once. Ask for fewer cores, or for less memory."
        ),
        "queue.unknown": _("There is no such queue. Choose one from the list."),
        "image.required": _("Choose an image, or type the path of one."),
        "image.not_absolute": _("Write the whole path of the image, beginning with /."),
        "image.missing": _("There is no such file on the cluster, or you may not read it."),
        "image.is_a_folder": _("This is a folder. Choose the image file in it."),
        "image.not_a_file": _("This is not an image file."),
        "folder.missing": _("There is no such folder on the cluster."),
        "folder.not_a_folder": _("This is not a folder."),
        "title.too_long": _("At most %(max)s characters, please."),
        "title.control_characters": _("Please write the name on one line, without control characters."),
        "environment.unknown_module": _("This environment is not offered. Choose one from the list."),
        "environment.path_required": _("Type the path of your environment."),
        "environment.not_absolute": _("Write the whole path, beginning with /."),
    }
    if code in sentences:
        return sentences[code] % values
    kind = code.rpartition(".")[2]
    general = {
        "not_a_number": _("Please write a number."),
        "not_whole": _("Please write a whole number."),
        "not_text": _("Please write text."),
        "required": _("Please fill this in."),
        "too_long": _("At most %(max)s characters, please."),
        "control_characters": _("Please write this on one line, without control characters."),
        "unknown": _("This choice is not offered."),
        "unknown_field": _("There is no such field."),
    }
    return general.get(kind, _("This value is not possible here.")) % values


def extension_sentence(code: str, params: Mapping[str, object]) -> str:
    """Why a session may not run longer, or less longer than usual."""
    values = Blank(params)
    at = str(values.get("at", ""))
    if at:
        values["at"] = date_format(timezone.localtime(dt.datetime.fromisoformat(at)), "DATETIME_FORMAT")
    not_the_portal = _("The cluster does not let the portal extend sessions. Please tell the administrators.")
    return {
        "extend.not_offered": _("Sessions cannot be extended on this cluster."),
        "extend.stopping": _("This session is about to end."),
        "extend.not_running": _("Only a session that runs can be extended."),
        "extend.asked": _("More time was asked for. The cluster has not answered yet; this page shows when it does."),
        "extend.used_up": ngettext(
            "It has been extended once, which is as often as it may be.",
            "It has been extended %(times)s times, which is as often as it may be.",
            _whole(params.get("times")),
        ),
        "extend.cluster_away": _("The cluster does not answer, so it cannot be extended at the moment."),
        "extend.time_unknown": _("The cluster has not said yet how long it may run. Try again in a moment."),
        "extend.too_late": _("Its time is over."),
        "extend.queue_gone": _("Its queue is no longer offered, so it cannot be extended."),
        "extend.no_room_queue": _("It cannot be extended: its queue allows %(hours)s hours in all."),
        "extend.no_room_allowance": _("It cannot be extended: your sessions may run %(hours)s hours in all."),
        "extend.no_room_maintenance": _("It cannot be extended: the cluster's maintenance begins on %(at)s."),
        "extend.limited_queue": _("That is all that is left: its queue allows %(hours)s hours in all."),
        "extend.limited_allowance": _("That is all that is left: your sessions may run %(hours)s hours in all."),
        "extend.limited_maintenance": _("That is up to the cluster's maintenance on %(at)s."),
        "scheduler.rejected.over_limit": _("The cluster did not extend it: that would be more than a limit allows."),
        "scheduler.not_permitted": not_the_portal,
        "ssh.login_refused": not_the_portal,
    }.get(code, _("The cluster did not extend it.")) % values


def launch_refusal(refused: LaunchRefused) -> str:
    """Why a launch was not possible, with what is wrong about its values, in one paragraph."""
    sentences = [mistake_sentence(code, params) for _field, code, params in refused.fields]
    return " ".join(sentences or [refusal_sentence(refused.code, refused.params)])


def refusal_sentence(code: str, params: Mapping[str, object]) -> str:
    """Why a launch was not possible."""
    return {
        "launch.limit_reached": _limit_sentence(str(params.get("scope")), _whole(params.get("held"))),
        "launch.none_allowed": _nothing_sentence(str(params.get("scope"))),
        "launch.invalid": _("Some values need another look. Nothing has been sent to the cluster."),
        "launch.cluster_away": _(
            "The cluster does not answer, so your choices could not be checked. Nothing is lost: try again in a moment."
        ),
        "launch.sign_in_again.enrolled-key": _(
            "The portal has no key of yours for the cluster. Sign out and in again with your cluster password: it then"
            " makes one."
        ),
        "launch.sign_in_again.password": _(
            "The portal no longer has your password for the cluster. Sign out and in again, then launch."
        ),
        "app.unknown": _("There is no such app."),
        "continue.not_running": _("Only a session that runs can be continued in a new one."),
        "continue.cluster_gone": _("The portal no longer serves the cluster it is on."),
    }.get(code, _("This is not possible right now.")) % Blank(params)


def _limit_sentence(scope: str, held: int) -> str:
    """Which limit is reached, and what to do."""
    match scope:
        case Scope.APP_ON_CLUSTER:
            return ngettext(
                "You already have a session of this app on this cluster, and may have one at a time. "
                "Open it, or stop it first.",
                "You already have %(held)s sessions of this app on this cluster, and may have %(allowed)s at a time. "
                "Stop one of them first.",
                held,
            )
        case Scope.APP:
            return ngettext(
                "You already have a session of this app, and may have one at a time. Open it, or stop it first.",
                "You already have %(held)s sessions of this app, and may have %(allowed)s at a time. "
                "Stop one of them first.",
                held,
            )
        case Scope.CLUSTER:
            return ngettext(
                "You already have a session on this cluster, and may have one at a time. Open it, or stop it first.",
                "You already have %(held)s sessions on this cluster, and may have %(allowed)s at a time. "
                "Stop one of them first.",
                held,
            )
    return ngettext(
        "You already have a session, and may have one at a time. Open it, or stop it first.",
        "You already have %(held)s sessions, and may have %(allowed)s at a time. Stop one of them first.",
        held,
    )


def _nothing_sentence(scope: str) -> str:
    """What somebody may not launch at all."""
    match scope:
        case Scope.APP_ON_CLUSTER:
            return _("You may not launch this app on this cluster. The administrators can allow it.")
        case Scope.APP:
            return _("You may not launch this app. The administrators can allow it.")
        case Scope.CLUSTER:
            return _("You may not launch sessions on this cluster. The administrators can allow it.")
    return _("You may not launch sessions. The administrators can allow it.")


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 1
