"""Checks of what the portal reads: settings, keys, static files, apps, the clusters file.

The checks of the settings need no Django; it may not start with the settings that are there.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import ValidationError

from launcher.doctor.findings import Said, broken, doubtful, fine, one_line, skipped
from launcher.doctor.runner import Check
from portal.conf import PROJECT, Conf, unknown_settings
from portal.words import marked as _


def site_conf() -> Conf:
    """The settings in force. Only for checks that come after Django was set up."""
    from django.conf import settings

    conf: Conf = settings.CONF
    return conf


def settings_parse(_portal: object) -> Sequence[Said]:
    """Every setting is understood and safe."""
    try:
        conf = Conf()  # type: ignore[call-arg]  # pydantic-settings fills the required fields from the environment
    except ValidationError as error:
        return [_mistake(item["loc"], item["msg"]) for item in error.errors()]
    except UnicodeDecodeError:
        return [broken(_("%(file)s is no text in UTF-8."), _("Save it as UTF-8."), file=PROJECT / ".env")]
    except OSError as error:
        return [
            broken(
                _("The settings cannot be read: %(words)s"),
                _("Let the portal's account read %(file)s."),
                words=error.strerror or error,
                file=error.filename or PROJECT / ".env",
            )
        ]
    if not conf.demo and not conf.is_https:
        return [
            doubtful(
                _("PORTAL_URL is %(url)s: without https, passwords and cookies cross the network in the clear."),
                _("Put TLS in front (deploy/nginx.conf) and set PORTAL_URL to the https address."),
                url=conf.portal_url,
            )
        ]
    return [fine(_("All settings are understood; the portal is %(url)s."), url=conf.portal_url)]


def _mistake(location: Sequence[object], message: str) -> Said:
    """A finding for one of pydantic's errors, which hold no values here."""
    words, _separator, command = message.removeprefix("Value error, ").partition("; run: ")
    name = f"PORTAL_{str(location[0]).upper()}" if location else ""
    if name == "PORTAL_SECRET_KEY":
        return broken(
            _("PORTAL_SECRET_KEY: %(words)s"),
            _("Make one and put it into the settings."),
            command="openssl rand -base64 48",
            words="is not set" if words == "Field required" else words,
        )
    if command:
        return broken(_("%(words)s"), _("Run this."), command=command, words=words)
    return broken(
        _("%(words)s"),
        _("Correct it in the environment or in %(file)s; .env.example explains each setting."),
        words=f"{name}: {words}" if name else words,
        file=PROJECT / ".env",
    )


def settings_known(_portal: object) -> Sequence[Said]:
    """No setting is misspelt."""
    try:
        unknown = unknown_settings()
    except (OSError, UnicodeDecodeError):  # settings_parse says so
        return [skipped(_("The settings cannot be read."))]
    if not unknown:
        return [fine(_("Every PORTAL_ variable that is set is a setting."))]
    return [
        doubtful(
            _("%(name)s is set and means nothing to the portal."),
            _("Did you mean %(nearest)s? Rename it, or take it away.")
            if nearest
            else _("Take it away, or look its name up in .env.example."),
            name=name,
            nearest=nearest,
        )
        for name, nearest in unknown.items()
    ]


def files_private(_portal: object) -> Sequence[Said]:
    """Nobody else on this machine can read what is secret."""
    from django.conf import settings

    conf: Conf = settings.CONF
    places = [(PROJECT / ".env", "600"), (conf.data_folder, "700")]
    places += [(path, "600") for path in conf.secret_files]
    if conf.database.startswith("sqlite:"):
        places.append((Path(settings.DATABASES["default"]["NAME"]), "600"))
    found: list[Said] = []
    for path, mode in places:
        if path.exists() and path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            if path.is_file() and path.parent != PROJECT and not path.parent.stat().st_mode & stat.S_IRWXO:
                continue  # nobody gets that far
            found.append(
                doubtful(
                    _("Other accounts of this machine can open %(path)s."),
                    _("Keep it to the portal's account."),
                    command=f"chmod {mode} {path}",
                    path=path,
                )
            )
    return found or [fine(_("Settings, data folder and database are closed to other accounts."))]


def ca_key(_portal: object) -> Said:
    """The SSH authority's key can be used, and its public half is its own."""
    from django.conf import settings

    from launcher.ssh.ca import CAError, load_user_ca

    path: Path = settings.CONF.ca_key_path
    if not path.exists():
        return broken(
            _("There is no SSH authority, so the portal has no certificates: %(path)s is missing."),
            _("Make it, or put the one back that the login hosts trust."),
            command=f"python -m launcher.keys {settings.CONF.data_folder}",
            path=path,
        )
    try:
        authority = load_user_ca(path)
    except CAError as error:
        words, _separator, command = error.detail.partition(". Run: ")
        return broken(
            _("The SSH authority cannot be used: %(words)s"),
            _("Let the file belong to the portal's account, mode 0600, with the key that login hosts trust."),
            command=command,
            words=words,
        )
    public = path.with_name(f"{path.name}.pub")
    if public.exists() and public.read_text(errors="replace").split()[:2] != authority.public_line.split()[:2]:
        return doubtful(
            _("%(public)s is not the public half of %(path)s; a login host that has it trusts another portal."),
            _("Make it anew, and compare with what the login hosts have in TrustedUserCAKeys."),
            command=f"ssh-keygen -y -f {path} > {public}",
            public=public,
            path=path,
        )
    return fine(_("%(path)s is in order."), path=path)


def encryption_keys(_portal: object) -> Sequence[Said]:
    """The files with encryption keys hold keys."""
    from django.conf import settings

    found: list[Said] = []
    for path in settings.CONF.encryption_key_paths:
        try:
            Fernet(path.read_bytes().strip())
        except (OSError, ValueError) as error:
            found.append(
                broken(
                    _("%(path)s holds no encryption key: %(words)s"),
                    _("Put the key back from its backup; a new one does not open what is in the database already."),
                    command="" if path.exists() else f"python -m launcher.keys {settings.CONF.data_folder}",
                    path=path,
                    words=error.strerror if isinstance(error, OSError) else "not a Fernet key",
                )
            )
    return found or [fine(_("The encryption keys can be read."))]


def static_files(_portal: object) -> Said:
    """Style sheets and scripts are where the web process looks for them."""
    from django.conf import settings
    from django.contrib.staticfiles.finders import get_finders

    if settings.SERVESTATIC_USE_FINDERS:
        return fine(_("Static files are served from their sources, as in every demo."))
    root = Path(settings.STATIC_ROOT)
    missing = [
        path
        for finder in get_finders()
        for path, storage in finder.list(None)
        if not (root / path).is_file() or (root / path).stat().st_size != storage.size(path)
    ]
    if missing:
        return broken(
            _("Static files missing in %(root)s, or of another release: %(count)s, for example %(first)s."),
            _("Collect them, then restart the web process."),
            command="manage.py collectstatic --noinput",
            count=len(missing),
            root=root,
            first=missing[0],
        )
    return fine(_("Static files are collected in %(root)s."), root=root)


def apps_load(_portal: object) -> Said:
    """The apps' folders are in order."""
    from django.conf import settings

    from launcher.catalog import CatalogError, load_apps

    try:
        found = load_apps(settings.CONF.apps_folders)
    except CatalogError as error:
        return broken(
            _("The apps cannot be read: %(words)s"),
            _("Correct the file; “Apps” in the administrator's guide explains the keys."),
            words=error.detail,
        )
    return fine(_("Apps: %(names)s."), names=", ".join(found))


def clusters_file(_portal: object) -> Sequence[Said]:
    """The clusters file is in order."""
    from django.conf import settings

    from launcher.clusters import ClustersError, load_clusters

    path: Path = settings.CONF.clusters_file
    try:
        found = load_clusters(path)
    except ClustersError as error:
        return [
            broken(
                _("The clusters file cannot be used: %(words)s"),
                _("Correct %(path)s; config/clusters.example.toml explains every line. Then restart the portal."),
                words=line,
                path=path,
            )
            for line in error.detail.splitlines()
        ]
    return [fine(_("%(path)s: %(names)s."), path=path, names=", ".join(found))]


def sign_in(_portal: object) -> Sequence[Said]:
    """The ways to sign in are there and have what they need."""
    from django.conf import settings

    from launcher.parts import clusters, sign_in_cluster

    conf: Conf = settings.CONF
    if conf.auth_cluster and conf.auth_cluster not in clusters():
        return [
            broken(
                _("PORTAL_AUTH_CLUSTER names “%(name)s”, which is not in the clusters file."),
                _("Name one of these: %(known)s."),
                name=conf.auth_cluster,
                known=", ".join(clusters()),
            )
        ]
    by_group = conf.administrator_groups or conf.auditor_groups or conf.allowed_groups
    if by_group and "cluster" in conf.auth and not sign_in_cluster().operator:
        return [
            doubtful(
                _("Rules by group fit nobody who signs in with the cluster's password: %(cluster)s has no operator."),
                _("Name an operator in the clusters file: only that account is believed about people's groups."),
                cluster=sign_in_cluster().id,
            )
        ]
    if not (conf.administrators or conf.administrator_groups or conf.administrator_claims):
        return [
            doubtful(
                _("Nobody is an administrator."),
                _("Name accounts in PORTAL_ADMINISTRATORS or groups in PORTAL_ADMINISTRATOR_GROUPS."),
            )
        ]
    said = [fine(_("People sign in by: %(names)s."), names=", ".join(conf.auth))]
    if "cluster" in conf.auth and not sign_in_cluster().operator:
        said.append(
            fine(
                _("%(cluster)s has no operator: that an account is not root's, its own shell alone says."),
                cluster=sign_in_cluster().id,
            )
        )
    return said


_PASSWORD = re.compile(r"//[^/@]*@")


def without_password(url: str) -> str:
    """``url`` without the name and the password in it."""
    return _PASSWORD.sub("//", url)


def mail(_portal: object) -> Said:
    """The mail server lets us in."""
    import smtplib

    from django.conf import settings
    from django.core.mail import get_connection

    if not settings.EMAIL_HOST:
        return skipped(_("No mail server is set, and no page offers mail."))
    where = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
    link = get_connection(fail_silently=False, timeout=10)
    try:
        link.open()
        link.close()
    except smtplib.SMTPAuthenticationError:
        return broken(
            _("The mail server %(where)s refuses the portal's name and password."),
            _("Correct them in PORTAL_EMAIL_URL; special characters are written as in a URL, @ as %%40."),
            where=where,
        )
    except (OSError, smtplib.SMTPException) as error:
        return broken(
            _("The mail server %(where)s cannot be used: %(words)s"),
            _("Start it or correct PORTAL_EMAIL_URL; “Mail” in the administrator's guide has the rule of TLS."),
            where=where,
            words=one_line(getattr(error, "strerror", None) or error),
        )
    return fine(_("The mail server %(where)s answers."), where=where)


BEFORE_DJANGO: tuple[Check[object], ...] = (
    Check("portal.settings", _("The settings"), settings_parse),
    Check("portal.names", _("The settings' names"), settings_known),
)
"""Checks that need nothing but Python."""
