"""What can go wrong between the portal and a login host.

SSHError
├── Unreachable        no connection could be made, or it broke (transient)
├── TimedOut           connected, but no answer in time (transient)
├── TooBusy            the portal's own budget of commands is used up for too long (transient)
├── LoginRefused       the login host does not accept this credential
├── HostKeyChanged     the login host shows a key that the clusters file does not name: stop, tell an administrator
├── TunnelRefused      the login host could not open a channel to the execution host (transient)
├── NodeRefused        the execution host does not let this user in by SSH
├── NodeKeyUnknown     the execution host shows a key that nobody has vouched for
└── RemoteFileError    a file operation failed; ``code`` says how (missing, denied, full, not a folder…)
"""

from __future__ import annotations

from portal.errors import FootbridgeError


class SSHError(FootbridgeError):
    """A login host could not be reached, refused us, or failed at what we asked."""

    code = "ssh.error"


class Unreachable(SSHError):
    """No connection could be made, or it broke while in use."""

    code = "ssh.unreachable"
    transient = True


class Interrupted(Unreachable):
    """The connection broke, or took too long, after somebody's password or answer had been handed over.

    Nobody knows whether it counted as an attempt there, so it is offered nowhere else.
    """

    code = "ssh.interrupted"


class TimedOut(SSHError):
    """The login host took longer than we wait."""

    code = "ssh.timed_out"
    transient = True


class TooBusy(SSHError):
    """The portal asks this login host as much as it may; the command was not even sent."""

    code = "ssh.too_busy"
    transient = True


class LoginRefused(SSHError):
    """The login host does not accept this user with this credential."""

    code = "ssh.login_refused"


class KeyRefused(LoginRefused):
    """The login host does not accept the key that the portal enrolled for this user."""

    code = "ssh.key_refused"


class PasswordRefused(LoginRefused):
    """The login host does not accept the password that the portal kept of this user."""

    code = "ssh.password_refused"


class HostKeyChanged(SSHError):
    """The login host showed a key that is not in the clusters file."""

    code = "ssh.host_key_changed"


class TunnelRefused(SSHError):
    """The login host could not open a channel to the execution host and port."""

    code = "ssh.tunnel_refused"
    transient = True


class NodeRefused(SSHError):
    """The execution host does not accept this user: not at all, or not without a job of theirs there."""

    code = "ssh.node_refused"


class NodeKeyUnknown(SSHError):
    """The execution host showed a key that neither the clusters file nor the known hosts name."""

    code = "ssh.node_key_unknown"


class RemoteFileError(SSHError):
    """A file operation failed on the cluster. ``code`` is one of file.missing, file.denied, file.full,
    file.not_a_folder, file.is_a_folder, file.too_large, file.exists, file.failed; ``params["path"]`` names the file."""

    code = "file.failed"
