"""Who may enter and who is what: by account, by group, by claim."""

from __future__ import annotations

import pytest

from portal.accounts import policy
from portal.accounts.models import Role
from portal.accounts.ways.base import Identity
from tests.unit.test_conf import settings

WHO = Identity("alice", groups=("physics", "users"), claims={"role": ("hpc-user", "hpc-admin")})


def test_without_a_rule_everybody_may_enter() -> None:
    assert policy.may_enter(settings(), Identity("anybody"))


@pytest.mark.parametrize(
    ("rule", "value"), [("allowed_users", "alice"), ("allowed_groups", "physics"), ("allowed_claims", "role=hpc-user")]
)
def test_one_rule_that_fits_is_enough_and_shuts_all_others_out(rule: str, value: str) -> None:
    conf = settings(**{rule: value, "allowed_users": "carol" if rule != "allowed_users" else value})
    assert policy.may_enter(conf, WHO)
    assert not policy.may_enter(conf, Identity("bob", groups=("chemistry",), claims={"role": ("guest",)}))


@pytest.mark.parametrize("groups", [(), ("users",)])
def test_a_claims_name_is_part_of_it(groups: tuple[str, ...]) -> None:
    conf = settings(allowed_claims="role=hpc-admin")
    assert not policy.may_enter(conf, Identity("bob", groups=groups, claims={"hobby": ("hpc-admin",)}))


def test_the_stronger_role_counts() -> None:
    conf = settings(auditor_groups="physics", administrator_claims="role=hpc-admin")
    assert policy.role_of(conf, WHO) is Role.ADMINISTRATOR
    assert policy.role_of(conf, Identity("bob", groups=("physics",))) is Role.AUDITOR
    assert policy.role_of(conf, Identity("bob")) is Role.USER
