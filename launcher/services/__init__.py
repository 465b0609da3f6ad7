"""Everything that happens to a session, each with its audit event in the same transaction. The only writer of sessions.

Views, tasks, consumers and the API call these; none of them talks to a cluster. A function that may be called twice for
the same fact (a repeated task, a late answer) does nothing the second time.
"""

from __future__ import annotations

from launcher.keyring import record_host_key_rejected
from launcher.selectors import CLAIM_SECONDS
from launcher.services.allowing import remove_allowance, set_allowance, set_sessions_of
from launcher.services.enrolling import (
    drop_expired_passwords,
    forget_key,
    give_up_line,
    key_to_enrol,
    record_enrolled,
    record_line_removed,
    revoke_key,
)
from launcher.services.extending import (
    ExtensionRefused,
    ask_extension,
    record_extended,
    record_extension_refused,
    verdict_of,
)
from launcher.services.facts import (
    record_access_denied,
    record_examined,
    record_folder_removed,
    record_last_path,
)
from launcher.services.idling import Look, keep_running, plan_looks, record_look
from launcher.services.launching import LaunchRefused, create_session, limit_refusal, refuse_above_limit
from launcher.services.noticing import (
    claim_mail,
    give_up_mail,
    record_mailed,
    tell_owner,
    warn_of_end,
)
from launcher.services.resealing import reseal_everything
from launcher.services.stopping import (
    CANCEL_AGAIN_SECONDS,
    GIVE_UP_AFTER,
    end_without_cluster,
    give_up,
    give_up_stopping,
    needs_cancel,
    record_cancelled,
    request_stop,
)
from launcher.services.submitting import (
    Claim,
    claim_submission,
    record_not_submitted,
    record_submitted,
    release_claim,
)
from launcher.services.visiting import (
    LONGEST_REASON,
    VISIT_MINUTES,
    VisitRefused,
    end_visit,
    end_visits_of,
    open_as_user,
)
from launcher.services.watching import (
    ROWS_AT_ONCE,
    Answer,
    end_session,
    has_left_its_place,
    record_answers,
    record_clusters_gone,
    record_heard,
    record_ready,
    record_server,
    record_unreachable,
    says_nothing_new,
)

__all__ = [
    "CANCEL_AGAIN_SECONDS",
    "CLAIM_SECONDS",
    "GIVE_UP_AFTER",
    "LONGEST_REASON",
    "ROWS_AT_ONCE",
    "VISIT_MINUTES",
    "Answer",
    "Claim",
    "ExtensionRefused",
    "LaunchRefused",
    "Look",
    "VisitRefused",
    "ask_extension",
    "claim_mail",
    "claim_submission",
    "create_session",
    "drop_expired_passwords",
    "end_session",
    "end_visit",
    "end_visits_of",
    "end_without_cluster",
    "forget_key",
    "give_up",
    "give_up_line",
    "give_up_mail",
    "give_up_stopping",
    "has_left_its_place",
    "keep_running",
    "key_to_enrol",
    "limit_refusal",
    "needs_cancel",
    "open_as_user",
    "plan_looks",
    "record_access_denied",
    "record_answers",
    "record_cancelled",
    "record_clusters_gone",
    "record_enrolled",
    "record_examined",
    "record_extended",
    "record_extension_refused",
    "record_folder_removed",
    "record_heard",
    "record_host_key_rejected",
    "record_last_path",
    "record_line_removed",
    "record_look",
    "record_mailed",
    "record_not_submitted",
    "record_ready",
    "record_server",
    "record_submitted",
    "record_unreachable",
    "refuse_above_limit",
    "release_claim",
    "remove_allowance",
    "request_stop",
    "reseal_everything",
    "revoke_key",
    "says_nothing_new",
    "set_allowance",
    "set_sessions_of",
    "tell_owner",
    "verdict_of",
    "warn_of_end",
]
