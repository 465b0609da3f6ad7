"""Checks of the OpenID provider that people sign in at: what it says of itself, its keys, and what it must know of us.

Asks what the portal asks at a sign-in, but nothing that was kept from an earlier one.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from launcher.doctor.findings import Said, broken, doubtful, fine, words_of
from launcher.doctor.portal import site_conf
from portal.accounts import openid_flow
from portal.accounts.ways import openid_provider
from portal.accounts.ways.openid_http import ProviderAway
from portal.words import marked as _


def document(_portal: object) -> Sequence[Said]:
    """The provider answers at its address, is who it is taken for, and can do what the portal needs."""
    issuer = site_conf().openid_issuer
    try:
        said = openid_provider.document_of(issuer)
    except ProviderAway as error:
        return [_away(issuer, error)]
    trouble = _identity_trouble(issuer, said) or _ability_trouble(said)
    return [trouble or fine(_("%(issuer)s answers, and calls itself so."), issuer=issuer)]


def _away(issuer: str, error: ProviderAway) -> Said:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return broken(
            _("The certificate of %(issuer)s is not the provider's: %(words)s"),
            _("Correct PORTAL_OPENID_ISSUER, or add the authority that signed it to this computer's trusted ones."),
            issuer=issuer,
            words=cause.verify_message,
        )
    return broken(
        _("The OpenID provider %(issuer)s does not answer properly: %(words)s"),
        _("Open its address with /.well-known/openid-configuration from this computer; correct PORTAL_OPENID_ISSUER."),
        issuer=issuer,
        words=f"{error.detail} ({words_of(cause)})" if isinstance(cause, OSError) else error.detail,
    )


def _identity_trouble(issuer: str, said: dict[str, Any]) -> Said | None:
    if said.get("issuer") != issuer:
        return broken(
            _("The provider calls itself %(named)s, and PORTAL_OPENID_ISSUER is %(issuer)s."),
            _("Set PORTAL_OPENID_ISSUER to what the provider says, letter by letter, if that is the right provider."),
            named=said.get("issuer"),
            issuer=issuer,
        )
    unsafe = openid_provider.unsafe_endpoint(said)
    if unsafe:
        return broken(
            _("The provider names no safe %(name)s: %(address)s"),
            _("Have the provider give an https address there; behind a reverse proxy it may not know its own."),
            name=unsafe,
            address=said.get(unsafe),
        )
    return None


def _ability_trouble(said: dict[str, Any]) -> Said | None:
    if not _offers(said, "response_types_supported", ("code",)):
        return broken(
            _("The provider does not offer the authorization code flow."),
            _("Switch the flow on for this portal at the provider."),
        )
    if not _offers(said, "id_token_signing_alg_values_supported", openid_provider.ALGORITHMS):
        return broken(
            _("The provider signs in no way that the portal takes: %(names)s."),
            _("Have it sign with RS256 or ES256."),
            names=", ".join(map(str, said["id_token_signing_alg_values_supported"])),
        )
    if not _offers(said, "code_challenge_methods_supported", ("S256",)):
        return doubtful(
            _("The provider does not check that a code comes back from the browser it was made for (PKCE, S256)."),
            _("Switch PKCE with S256 on for this portal at the provider, if it can."),
        )
    return None


def _offers(said: dict[str, Any], name: str, wanted: Sequence[str]) -> bool:
    """Whether one of these is offered. What a provider does not list it is not asked about."""
    offered = said.get(name)
    return not isinstance(offered, list) or any(each in wanted for each in offered)


def keys(_portal: object) -> Said:
    """The provider names keys that the portal can check its signatures with."""
    address = str(openid_provider.document_of(site_conf().openid_issuer)["jwks_uri"])
    try:
        found = openid_provider.keys_at(address)
    except ProviderAway as error:
        return broken(
            _("The provider's keys cannot be used: %(words)s"),
            _("Open %(address)s: it must list a key to sign with, for RS256 or ES256 for example."),
            words=error.detail,
            address=address,
        )
    names = sorted({key.algorithm_name for key in found.values()})
    return fine(_("Keys of the provider: %(count)s, for %(names)s."), count=len(found), names=", ".join(names))


def own_address(_portal: object) -> Said:
    """Where the provider must be told to send browsers back to."""
    return fine(
        _("At the provider this must be registered as the redirect address, exactly: %(address)s"),
        address=openid_flow.redirect_uri(),
    )
