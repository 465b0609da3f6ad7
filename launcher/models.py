"""The records of the launcher. Only ``launcher.services`` writes them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from launcher.states import LIVE_STATES, EndReason, SessionState
from portal import ids


def _choices(enum: type[SessionState] | type[EndReason]) -> list[tuple[str, str]]:
    return [(member.value, member.value) for member in enum]


class InteractiveSession(models.Model):
    """One run of an app for one user. It has at most one job at a time."""

    id = models.CharField(primary_key=True, max_length=16, default=ids.session_id, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="interactive_sessions"
    )
    username = models.CharField(max_length=64)  # the account on the cluster; stays when the user is deleted
    cluster = models.CharField(max_length=32)
    app = models.CharField(max_length=64)
    title = models.CharField(max_length=80, blank=True)
    choices = models.JSONField(default=dict)  # LaunchChoices.as_dict()
    host_label = models.CharField(max_length=32, unique=True, default=ids.host_label, editable=False)

    state = models.CharField(max_length=12, choices=_choices(SessionState), default=SessionState.SUBMITTING)
    created_at = models.DateTimeField()
    submitted_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)  # the job began to run
    environment_at = models.DateTimeField(null=True, blank=True)  # its environment began to load
    server_at = models.DateTimeField(null=True, blank=True)  # its server wrote the connection file
    ready_at = models.DateTimeField(null=True, blank=True)
    connected_at = models.DateTimeField(null=True, blank=True)  # first opened
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    stop_requested_by = models.CharField(max_length=64, blank=True)
    stop_reason = models.CharField(max_length=20, blank=True)  # the EndReason that the stop will lead to
    cancelled_at = models.DateTimeField(null=True, blank=True)  # the scheduler accepted the cancel
    ended_at = models.DateTimeField(null=True, blank=True)

    claimed_at = models.DateTimeField(null=True, blank=True)  # a worker is submitting
    claim = models.CharField(max_length=32, blank=True)  # that worker's mark, for compare-and-set
    submit_attempts = models.PositiveSmallIntegerField(default=0)  # those that may have left a job behind
    job_id = models.CharField(max_length=128, blank=True)
    job_state = models.CharField(max_length=12, blank=True)
    job_comment = models.CharField(max_length=2000, blank=True)
    run_count = models.PositiveIntegerField(null=True, blank=True)  # how often the cluster began to run the job
    execution_host = models.CharField(max_length=255, blank=True)
    estimated_start_at = models.DateTimeField(null=True, blank=True)
    walltime_seconds = models.PositiveIntegerField(null=True, blank=True)  # as the scheduler grants it
    walltime_ends_at = models.DateTimeField(null=True, blank=True)
    polled_at = models.DateTimeField(null=True, blank=True)
    unreachable_since = models.DateTimeField(null=True, blank=True)
    unreachable_code = models.CharField(max_length=64, blank=True)  # why, where it is more than no answer
    missing_count = models.PositiveSmallIntegerField(default=0)  # answers in a row that left the job out
    memory_used_mib = models.PositiveIntegerField(null=True, blank=True)

    extensions = models.PositiveSmallIntegerField(default=0)  # granted so far
    extending_to_seconds = models.PositiveIntegerField(null=True, blank=True)  # asked for; the answer is not yet known
    extension_refused = models.CharField(max_length=64, blank=True)  # why the last one was not granted, as a code
    extension_refused_detail = models.CharField(max_length=500, blank=True)  # the scheduler's own words
    continues = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="continuations"
    )  # the session whose work this one goes on with
    active_at = models.DateTimeField(null=True, blank=True)  # somebody's work in it was last seen
    activity_check_at = models.DateTimeField(null=True, blank=True)  # when to look for work again
    idle_stop_at = models.DateTimeField(null=True, blank=True)  # the stop its owner was told of: nobody uses it
    last_path = models.CharField(max_length=1024, blank=True)  # the notebook last worked in, as its server names it

    folder = models.CharField(max_length=1024, blank=True)  # absolute path on the cluster
    folder_removed_at = models.DateTimeField(null=True, blank=True)
    base_url = models.CharField(max_length=64, default="/")
    upstream_host = models.CharField(max_length=255, blank=True)
    upstream_port = models.PositiveIntegerField(null=True, blank=True)
    upstream_socket = models.CharField(max_length=107, blank=True)  # a Unix socket on the host, instead of the port
    upstream_trouble = models.CharField(max_length=64, blank=True)  # why the way there was closed at the last look
    upstream_flavor = models.CharField(max_length=16, blank=True)
    upstream_server = models.CharField(max_length=64, blank=True)
    secret_encrypted = models.BinaryField(blank=True, default=b"")

    end_reason = models.CharField(max_length=20, choices=_choices(EndReason), blank=True)
    end_code = models.CharField(max_length=64, blank=True)  # the sentence people read
    end_params = models.JSONField(default=dict, blank=True)
    end_detail = models.CharField(max_length=2000, blank=True)  # the other side's own words
    exit_status = models.IntegerField(null=True, blank=True)
    log_tail = models.TextField(blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["cluster", "state"], name="session_by_cluster_state"),
            models.Index(fields=["owner", "-created_at"], name="session_by_owner"),
            # what is asked every few seconds must not read the history; every database takes this condition as proven
            models.Index(fields=["cluster"], condition=Q(ended_at__isnull=True), name="live_session_by_cluster"),
            models.Index(fields=["walltime_ends_at"], condition=Q(ended_at__isnull=True), name="live_session_by_end"),
            models.Index(fields=["-ended_at", "-id"], condition=Q(ended_at__isnull=False), name="ended_session_by_end"),
            models.Index(
                fields=["cluster", "ended_at"],
                condition=Q(ended_at__isnull=False, folder_removed_at__isnull=True) & ~Q(folder=""),
                name="folder_to_be_removed",
            ),
        ]
        constraints = [
            # of live ones: a scheduler that was set up anew begins to count anew
            models.UniqueConstraint(
                fields=["cluster", "job_id"],
                condition=~Q(job_id="") & ~Q(state=SessionState.ENDED),
                name="one_live_session_per_job",
            ),
            models.CheckConstraint(
                condition=Q(state=SessionState.ENDED, ended_at__isnull=False) & ~Q(end_reason="")
                | ~Q(state=SessionState.ENDED),
                name="ended_has_time_and_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.username}, {self.app}, {self.state})"

    @property
    def has_own_origin(self) -> bool:
        """Whether browsers keep its pages apart from the portal's; else it is served below the portal's address."""
        return self.base_url == "/"

    @property
    def is_live(self) -> bool:
        """Whether the session still counts against its owner's limit."""
        return self.state in LIVE_STATES

    @property
    def job_name(self) -> str:
        """The job's name on the cluster: it carries the session's marker."""
        return f"fb-{self.id}"


class SupportVisit(models.Model):
    """An administrator's leave to open somebody's session for a while, for a reason that its owner can read."""

    session = models.ForeignKey(InteractiveSession, on_delete=models.CASCADE, related_name="visits")
    visitor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="visits")
    visitor_name = models.CharField(max_length=64)
    reason = models.CharField(max_length=300)
    began_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)  # before its time

    class Meta:
        ordering = ["began_at", "pk"]

    def __str__(self) -> str:
        return f"visit of {self.visitor_name} to {self.session_id}"


class AccessGrant(models.Model):
    """The right of one browser to reach one session's own address: what the cookie there stands for."""

    digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the cookie's value
    session = models.ForeignKey(InteractiveSession, on_delete=models.CASCADE, related_name="grants")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="grants")
    web_session_digest = models.CharField(max_length=64)  # SHA-256 of the portal session's key: sign-out ends the grant
    visit = models.ForeignKey(  # set when it is not the owner's: why, and how long
        SupportVisit, on_delete=models.CASCADE, null=True, blank=True, related_name="grants"
    )
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"grant of {self.user_id} for {self.session_id}"


class NoticeKind(models.TextChoices):
    """What an owner is told of without having asked."""

    READY = "ready"
    TIME = "time"  # the walltime will be over soon
    IDLE = "idle"  # it will be stopped soon because nobody uses it
    VISIT = "visit"  # an administrator opened it
    ENDED = "ended"


class Notice(models.Model):
    """Something the owner of a session was told, or will be: on open pages, and by e-mail where they want it."""

    session = models.ForeignKey(InteractiveSession, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=8, choices=NoticeKind.choices)
    key = models.CharField(max_length=40)  # the same fact is told once
    params = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField()
    mail_wanted = models.BooleanField(default=False)
    mail_attempts = models.PositiveSmallIntegerField(default=0)
    mail_due_at = models.DateTimeField(null=True, blank=True)  # when to try next; None: sent, given up or not wanted
    mailed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["mail_due_at"], condition=Q(mail_due_at__isnull=False), name="notice_to_be_mailed"),
        ]
        constraints = [models.UniqueConstraint(fields=["session", "key"], name="one_notice_per_fact")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.session_id}"


class Allowance(models.Model):
    """What an administrator allows a person or the members of a group, beside the site's own rule.

    Without ``app`` and ``cluster`` it is about all sessions together.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="allowances"
    )
    group = models.CharField(max_length=64, blank=True)  # on the cluster; empty when it is about one person
    app = models.CharField(max_length=64, blank=True)
    cluster = models.CharField(max_length=32, blank=True)
    sessions = models.PositiveSmallIntegerField(null=True, blank=True)  # at a time; None: says nothing about it
    hours = models.FloatField(null=True, blank=True)  # that one session may ask for; None: says nothing about it
    changed_at = models.DateTimeField()

    class Meta:
        constraints = [
            # two of them, because a database takes no two empty users for the same
            models.UniqueConstraint(
                fields=["user", "app", "cluster"],
                condition=Q(user__isnull=False),
                name="one_allowance_of_a_person",
            ),
            models.UniqueConstraint(
                fields=["group", "app", "cluster"], condition=Q(user__isnull=True), name="one_allowance_of_a_group"
            ),
            models.CheckConstraint(
                condition=Q(user__isnull=False, group="") | Q(user__isnull=True) & ~Q(group=""),
                name="allowance_of_a_person_or_a_group",
            ),
        ]

    def __str__(self) -> str:
        return f"allowance of {self.user_id or self.group}"


class EnrolledKey(models.Model):
    """A key pair with which the portal acts as one account of one cluster; its owner may take it back any time."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="enrolled_keys"
    )
    username = models.CharField(max_length=64)  # the account on the cluster; stays when the user is deleted
    cluster = models.CharField(max_length=32)
    public_key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)
    private_key_encrypted = models.BinaryField(default=b"")  # wiped when the line is gone from the cluster
    created_at = models.DateTimeField()
    enrolled_at = models.DateTimeField(null=True, blank=True)  # a login host has accepted it
    last_used_at = models.DateTimeField(null=True, blank=True)  # to some minutes
    revoked_at = models.DateTimeField(null=True, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)  # its line is gone, or worthless for good

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["cluster", "username"], condition=Q(revoked_at__isnull=True), name="one_key_per_account"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.fingerprint} of {self.username} on {self.cluster}"


class KeptPassword(models.Model):
    """Half of what opens a password that lies encrypted in the shared cache while its owner is signed in."""

    username = models.CharField(max_length=64)
    cluster = models.CharField(max_length=32)
    cache_key = models.CharField(max_length=64, unique=True)
    key_encrypted = models.BinaryField()  # opens what lies in the cache; itself sealed with the portal's key
    web_session_digest = models.CharField(max_length=64, db_index=True)  # sign-out ends it
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["cluster", "username", "-created_at"], name="password_by_account")]

    def __str__(self) -> str:
        return f"password of {self.username} for {self.cluster}"
