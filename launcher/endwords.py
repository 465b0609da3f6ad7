"""Why a session ended and what to do about it: the sentences for the codes of schedulers, job scripts and flows.

A code without a sentence gets a general one; a test makes sure that no code of ours is without.
"""

from __future__ import annotations

from django.utils.translation import gettext as _

from launcher.models import InteractiveSession
from launcher.states import EndReason
from launcher.wording import Blank


def end_sentence(session: InteractiveSession, *, is_owner: bool = True) -> str:
    """Why a session ended, in one sentence for its owner or for somebody else."""
    if session.end_code == f"ended.{EndReason.STOPPED_BY_USER}" and not is_owner:
        return _("%(owner)s stopped it.") % {"owner": session.username}
    return _end(session)[0]


def end_cure(session: InteractiveSession) -> str:
    """What to do about it; empty where nothing needs doing."""
    return _end(session)[1]


def _end(session: InteractiveSession) -> tuple[str, str]:
    sentences = end_sentences()
    params: dict[str, object] = dict(session.end_params)
    codes = (f"{session.end_code}.{params.get('signal')}", session.end_code, f"ended.{session.end_reason}")
    found = next((sentences[code] for code in codes if code in sentences), sentences["ended.failed"])
    subject = params.get("subject") or params.get("module") or params.get("path") or ""
    values = Blank({"by": session.stop_requested_by, "exit_status": session.exit_status, **params, "subject": subject})
    return found[0] % values, found[1] % values


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
        "ended.killed.9": (
            _("It was killed on the computer it ran on (signal %(signal)s)."),
            _("Often its memory was not enough: launch again with more. The end of its log may say more."),
        ),
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
        "ssh.key_refused": (
            _("The cluster does not accept the portal's key for your account any more."),
            _("Connect your cluster account on your profile page, then launch again."),
        ),
        "ssh.password_refused": (
            _("The cluster does not accept the password that the portal had of you any more."),
            _("Connect your cluster account on your profile page, then launch again."),
        ),
        "ssh.not_enrolled": (
            _("The portal has no key of yours for the cluster any more."),
            _("Connect your cluster account on your profile page, then launch again."),
        ),
        "ssh.no_password": (
            _("When the session was to be sent, the portal no longer had your password."),
            _("Connect your cluster account on your profile page, then launch again."),
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
