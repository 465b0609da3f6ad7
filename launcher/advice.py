"""Advice on a launch form: what is free on the cluster now, and what the person's own last runs used. No promises.

What is not known is left out, and nothing here keeps the form waiting for longer than a moment.
"""

from __future__ import annotations

from collections.abc import Mapping

from launcher import clusterwords, selectors
from launcher.catalog import App, ChoicesRefused, check_choices
from launcher.clusters import Cluster
from launcher.fits import room
from launcher.flows.facts import facts_of, is_fresh, known_facts
from portal.accounts.models import User

WAIT_SECONDS = 1.0
"""The form is there after so long, with or without advice."""


def advice_for(
    app: App, cluster: Cluster, user: User, raw: Mapping[str, object], *, may_ask: bool
) -> Mapping[str, str]:
    """Sentences by field. ``raw``: what the form is filled in with. ``may_ask``: the cluster may be asked, briefly."""
    sentences = {
        "cores": _free_now(app, cluster, user, raw, may_ask=may_ask),
        "memory": clusterwords.memory_advice(selectors.memory_peaks(user, app.id)),
    }
    return {field: sentence for field, sentence in sentences.items() if sentence}


def _free_now(app: App, cluster: Cluster, user: User, raw: Mapping[str, object], *, may_ask: bool) -> str:
    name = user.username
    facts = facts_of(cluster, name, wait_seconds=WAIT_SECONDS) if may_ask else known_facts(cluster, name)
    if facts is None or not is_fresh(facts):
        return ""
    try:
        choices = check_choices(app, cluster, raw)
    except ChoicesRefused:
        return ""
    found = room(facts, queue=choices.queue, cores=choices.cores, memory_mib=choices.memory_mib, gpus=choices.gpus)
    return clusterwords.room_advice(found) if found else ""
