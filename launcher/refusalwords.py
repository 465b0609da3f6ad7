"""Why something was not granted: a value of a launch, a launch, more time. Sentences for codes, as in ``endwords``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from launcher.allowances import Scope
from launcher.services import LaunchRefused
from launcher.wording import Blank, hours_text, joined, memory_text


def mistake_sentence(code: str, params: Mapping[str, object]) -> str:
    """What is wrong with one value of a launch, and what to write instead."""
    values = Blank(params)
    amount = values.get("max")
    if isinstance(amount, int) and code in ("memory.too_much", "memory.no_computer"):
        values["max"] = memory_text(amount)
    if code.startswith("hours."):
        values.update({name: hours_text(values[name]) for name in ("min", "max") if name in values})
    sentences = {
        "choices.not_an_object": _("Send the values as an object of names and values."),
        "cores.too_many": _("At most %(max)s cores are possible here."),
        "cores.too_few": _("At least %(min)s core is needed."),
        "memory.not_an_amount": _("This is not an amount of memory. Write for example 4 GB or 512 MB."),
        "memory.too_much": _("At most %(max)s are possible here."),
        "memory.too_little": _("Jupyter needs at least %(min)s MB."),
        "hours.over_allowance": _("Your sessions may last at most %(max)s."),
        "hours.none_allowed": _("This needs at least %(min)s, but your sessions may last at most %(max)s."),
        "hours.over_queue_limit": _("The queue %(queue)s allows at most %(max)s."),
        "hours.too_many": _("At most %(max)s are possible here."),
        "hours.too_few": _("It must be at least %(min)s."),
        "gpus.too_many": _("At most %(max)s GPUs are possible here."),
        "gpus.too_few": _("This cannot be less than %(min)s."),
        "gpus.none": _("The queue %(queue)s has no GPUs. Choose one that has some."),
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
        "environment.not_absolute": _("Write the whole path, beginning with / or ~/."),
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
    if "hours" in values:
        values["hours"] = hours_text(values["hours"])
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
        "extend.no_room_queue": _("It cannot be extended: its queue allows %(hours)s in all."),
        "extend.no_room_allowance": _("It cannot be extended: your sessions may run %(hours)s in all."),
        "extend.no_room_maintenance": _("It cannot be extended: the cluster's maintenance begins on %(at)s."),
        "extend.limited_queue": _("That is all that is left: its queue allows %(hours)s in all."),
        "extend.limited_allowance": _("That is all that is left: your sessions may run %(hours)s in all."),
        "extend.limited_maintenance": _("That is up to the cluster's maintenance on %(at)s."),
        "scheduler.rejected.over_limit": _("The cluster did not extend it: that would be more than a limit allows."),
        "scheduler.not_permitted": not_the_portal,
        "ssh.login_refused": not_the_portal,
    }.get(code, _("The cluster did not extend it.")) % values


def launch_refusal(refused: LaunchRefused) -> str:
    """Why a launch was not possible, with what is wrong about its values, in one paragraph."""
    sentences = [mistake_sentence(code, params) for _field, code, params in refused.fields]
    return joined(*(sentences or [refusal_sentence(refused.code, refused.params)]))


def refusal_sentence(code: str, params: Mapping[str, object]) -> str:
    """Why a launch was not possible."""
    return {
        "launch.limit_reached": _limit_sentence(str(params.get("scope")), _whole(params.get("held"))),
        "launch.none_allowed": _nothing_sentence(str(params.get("scope"))),
        "launch.invalid": _("Some values need another look. Nothing has been sent to the cluster."),
        "launch.cluster_away": _(
            "The cluster does not answer, so your choices could not be checked. Nothing is lost: try again in a moment."
        ),
        "launch.host_key_changed": _(
            "The cluster's login computer shows another key than the one the administrators wrote down, so nothing was"
            " sent to it. They have been told. Try again later."
        ),
        "launch.login_refused": _(
            "The cluster did not let the portal in with your account. Try again later. If it happens again, ask the"
            " administrators."
        ),
        "launch.key_refused": _(
            "The cluster does not accept the portal's key for your account any more. Connect your cluster account on"
            " your profile page, then launch."
        ),
        "launch.not_connected.enrolled-key": _(
            "The portal has no key of yours for the cluster. Connect your cluster account on your profile page, then"
            " launch."
        ),
        "launch.not_connected.password": _(
            "The portal does not have your password for the cluster. Connect your cluster account on your profile page,"
            " then launch."
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
