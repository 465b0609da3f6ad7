"""The OpenID provider: where its pages are, its keys, a code's exchange and the check of the token that comes back.

Knows nothing of Django. What was discovered is kept for an hour in each process; a token signed with a key that is not
among those known makes the portal ask for the keys once more, not oftener than every half minute.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

import jwt

from portal.accounts.ways.openid_http import ProviderAway, ProviderRefused, ask
from portal.openid_conf import OpenIdConf, is_safe_address

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that only the provider can make. Never ``none``, never one made with a secret that others have."""
LEEWAY_SECONDS = 60
OLDEST_TOKEN_SECONDS = 600
_KEEP_SECONDS = 3600.0
_ASK_AGAIN_SECONDS = 30.0


@dataclass(slots=True)
class _Known:
    """What one issuer said of itself, and when."""

    document: dict[str, Any]
    keys: dict[str, jwt.PyJWK]
    at: float
    keys_at: float = field(default_factory=time.monotonic)


_known: dict[str, _Known] = {}
_lock = threading.Lock()


def forget() -> None:
    """Drop what is kept of providers."""
    with _lock:
        _known.clear()


def _discover(issuer: str) -> _Known:
    with _lock:
        known = _known.get(issuer)
    if known is not None and time.monotonic() - known.at < _KEEP_SECONDS:
        return known
    document = document_of(issuer)
    if document.get("issuer") != issuer:
        raise ProviderAway("the provider calls itself otherwise than PORTAL_OPENID_ISSUER")
    unsafe = unsafe_endpoint(document)
    if unsafe:
        raise ProviderAway(f"the provider names no safe {unsafe}")
    known = _Known(document, keys_at(document["jwks_uri"]), time.monotonic())
    with _lock:
        _known[issuer] = known
    return known


def document_of(issuer: str) -> dict[str, Any]:
    """What a provider says of itself, unjudged (OpenID Connect Discovery 1.0, 4). Raises ProviderAway."""
    return ask(issuer.rstrip("/") + "/.well-known/openid-configuration")


def unsafe_endpoint(document: dict[str, Any]) -> str:
    """The first of the addresses that the portal needs which is missing or not https; empty where all are good."""
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        address = document.get(name)
        if not isinstance(address, str) or not is_safe_address(address):
            return name
    return ""


def keys_at(address: str) -> dict[str, jwt.PyJWK]:
    """The keys there that the portal can use, by their names. Raises ProviderAway, also where there is none."""
    found = ask(address).get("keys")
    keys: dict[str, jwt.PyJWK] = {}
    for each in found[:50] if isinstance(found, list) else []:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") == "oct":
            continue
        try:
            key = jwt.PyJWK(each)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue  # of a kind that this library does not know; others may do
        if key.algorithm_name in ALGORITHMS:
            keys[str(each.get("kid", ""))] = key
    if not keys:
        raise ProviderAway("the provider names no key that the portal can use")
    return keys


def challenge(verifier: str) -> str:
    """What the provider is told of ``verifier`` (PKCE, S256: RFC 7636 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def authorize_address(conf: OpenIdConf, *, redirect_uri: str, state: str, nonce: str, verifier: str, anew: bool) -> str:
    """Where the browser goes to. ``anew``: the provider shall ask who it is even if it knows. Raises ProviderAway."""
    start = str(_discover(conf.openid_issuer).document["authorization_endpoint"])
    question = {
        "response_type": "code",
        "client_id": conf.openid_client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(conf.openid_scopes),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge(verifier),
        "code_challenge_method": "S256",
    }
    if anew:
        question |= {"prompt": "login", "max_age": "0"}
    return start + ("&" if "?" in start else "?") + urlencode(question)


def sign_out_address(conf: OpenIdConf, *, back: str) -> str:
    """Where somebody signs out of the provider, who comes ``back`` then; empty where it has no such page.

    OpenID Connect RP-Initiated Logout 1.0, 2. No token goes along, since none is kept: the provider asks who leaves.
    Raises ProviderAway.
    """
    address = _discover(conf.openid_issuer).document.get("end_session_endpoint")
    if not isinstance(address, str) or not is_safe_address(address):
        return ""
    values = {"client_id": conf.openid_client_id, "post_logout_redirect_uri": back}
    return address + ("&" if "?" in address else "?") + urlencode(values)


def redeem(conf: OpenIdConf, *, code: str, redirect_uri: str, nonce: str, verifier: str) -> dict[str, Any]:
    """The claims of who brought ``code``. Tokens end here. Raises ProviderAway, ProviderRefused."""
    document = _discover(conf.openid_issuer).document
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    headers = {}
    secret = conf.openid_secret()
    if not secret:
        form["client_id"] = conf.openid_client_id
    elif "client_secret_basic" in (document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]):
        pair = f"{quote_plus(conf.openid_client_id)}:{quote_plus(secret)}"  # RFC 6749 2.3.1
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    else:
        form |= {"client_id": conf.openid_client_id, "client_secret": secret}
    token = ask(document["token_endpoint"], body=urlencode(form), headers=headers).get("id_token")
    if not isinstance(token, str):
        raise ProviderRefused("the provider gave no id_token")
    return _checked(conf, token, nonce)


def _checked(conf: OpenIdConf, token: str, nonce: str) -> dict[str, Any]:
    """The token's claims (OpenID Connect Core 3.1.3.7). Raises ProviderRefused, ProviderAway."""
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise ProviderRefused("the token is signed in a way that the portal does not take")
        claims: dict[str, Any] = jwt.decode(
            token,
            _key(conf.openid_issuer, str(header.get("kid", ""))).key,
            algorithms=[algorithm],
            audience=conf.openid_client_id,
            issuer=conf.openid_issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise ProviderRefused(f"the token is not good: {type(error).__name__}") from error
    audience, party = claims["aud"], claims.get("azp")
    if party not in (None, conf.openid_client_id) or (isinstance(audience, list) and len(audience) > 1 and not party):
        raise ProviderRefused("the token is for another client")
    if claims.get("nonce") != nonce:
        raise ProviderRefused("the token answers another question")
    if time.time() - claims["iat"] > OLDEST_TOKEN_SECONDS + LEEWAY_SECONDS:
        raise ProviderRefused("the token is old")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
        raise ProviderRefused("the token names nobody")
    return claims


def _key(issuer: str, kid: str) -> jwt.PyJWK:
    known = _discover(issuer)
    key = _chosen(known, kid)
    if key is None and time.monotonic() - known.keys_at > _ASK_AGAIN_SECONDS:
        known.keys_at = time.monotonic()
        known.keys = keys_at(known.document["jwks_uri"])
        key = _chosen(known, kid)
    if key is None:
        raise ProviderRefused("the token is signed with a key that the provider does not name")
    return key


def _chosen(known: _Known, kid: str) -> jwt.PyJWK | None:
    """The key that ``kid`` names; without a name the only one."""
    if not kid and len(known.keys) == 1:
        return next(iter(known.keys.values()))
    return known.keys.get(kid)
