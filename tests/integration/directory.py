"""A real directory for the tests: slapd on free ports, with TLS, people, groups and a password policy."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.test_notice_mail import free_port
from tests.waiting import listens, wait_for

SLAPD = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/libexec")
SCHEMAS = Path("/etc/ldap/schema")
BASE = "dc=cluster,dc=example"
READER, READER_PASSWORD = f"cn=portal,{BASE}", "reader-Pa55word"

_CONFIG = """\
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/nis.schema
include {schemas}/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
moduleload retcode
pidfile {folder}/slapd.pid
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
database mdb
maxsize 16777216
suffix "{base}"
rootdn "cn=root,{base}"
directory {folder}/data
overlay ppolicy
ppolicy_default "cn=policy,{base}"
overlay retcode
retcode-parent "ou=codes,{base}"
retcode-indir
access to attrs=userPassword by anonymous auth by * none
access to filter=(objectClass=errAuxObject) by * read
access to * by dn.exact="{reader}" read by * none
"""

_PEOPLE = """\
dn: {base}
objectClass: organization
objectClass: dcObject
o: Cluster
dc: cluster

dn: cn=policy,{base}
objectClass: person
objectClass: pwdPolicy
cn: policy
sn: policy
pwdAttribute: userPassword
pwdLockout: TRUE

dn: {reader}
objectClass: person
cn: portal
sn: portal
userPassword: {reader_password}

dn: ou=people,{base}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{base}
objectClass: organizationalUnit
ou: groups

dn: uid=alice,ou=people,{base}
objectClass: inetOrgPerson
uid: alice
cn: Alice Demo
sn: Demo
mail: alice@cluster.example
employeeType: staff
userPassword: alice-in-the-directory

dn: uid=bob,ou=people,{base}
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: Demo
userPassword: bob-in-the-directory
pwdAccountLockedTime: 000001010000Z

dn: uid=carol,ou=people,{base}
objectClass: inetOrgPerson
objectClass: errAuxObject
uid: carol
cn: Carol
sn: Demo
errCode: 19
errOp: bind

dn: uid=dora,ou=people,{base}
objectClass: inetOrgPerson
objectClass: errAuxObject
uid: dora
cn: Dora
sn: Demo
errCode: 51
errOp: bind

dn: uid=erin,ou=people,{base}
objectClass: inetOrgPerson
uid: erin
cn: {long_name}
sn: Demo
mail: no address
userPassword: erin-in-the-directory

dn: uid=root,ou=people,{base}
objectClass: inetOrgPerson
uid: root
cn: Root
sn: Demo
userPassword: root-in-the-directory

dn: uid=toor,ou=people,{base}
objectClass: inetOrgPerson
objectClass: posixAccount
uid: toor
cn: Root by another name
sn: Demo
uidNumber: 0
gidNumber: 0
homeDirectory: /root
userPassword: toor-in-the-directory

dn: cn=physics,ou=groups,{base}
objectClass: groupOfNames
cn: physics
member: uid=alice,ou=people,{base}

dn: cn=hpc,ou=groups,{base}
objectClass: posixGroup
cn: hpc
gidNumber: 4001
memberUid: alice
memberUid: bob
"""


@dataclass(frozen=True, slots=True)
class Directory:
    """A running slapd."""

    folder: Path
    port: int
    tls_port: int

    @property
    def settings(self) -> dict[str, object]:
        """What a portal needs to know of it."""
        return {
            "auth": ("ldap",),
            "ldap_url": f"ldaps://127.0.0.1:{self.tls_port}",
            "ldap_ca_file": self.folder / "ca.pem",
            "ldap_bind_dn": READER,
            "ldap_bind_password": READER_PASSWORD,
            "ldap_user_base": f"ou=people,{BASE}",
            "ldap_group_base": f"ou=groups,{BASE}",
        }


def write_certificates(folder: Path, *, prefix: str = "") -> None:
    """A new authority and a certificate of this machine's own address by it."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Directory authority")])
    since = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(public)
        return (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(since + dt.timedelta(days=1))
        )

    ca = certificate(issuer, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    server = certificate(name, key.public_key()).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
    )
    pem = serialization.Encoding.PEM
    (folder / f"{prefix}ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / f"{prefix}server.pem").write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / f"{prefix}server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@contextlib.contextmanager
def directory(folder: Path) -> Iterator[Directory]:
    """A slapd with the people above, until the block ends."""
    assert SLAPD is not None
    names = {"folder": folder, "base": BASE, "reader": READER, "reader_password": READER_PASSWORD, "schemas": SCHEMAS}
    names["long_name"] = "Erin " + 200 * "x"
    write_certificates(folder)
    (folder / "data").mkdir()
    config, people = folder / "slapd.conf", folder / "people.ldif"
    config.write_text(_CONFIG.format(**names))
    people.write_text(_PEOPLE.format(**names))
    subprocess.run([SLAPD, "-T", "add", "-f", config, "-l", people], check=True, capture_output=True, timeout=60)
    one = Directory(folder, free_port(), free_port())
    addresses = f"ldap://127.0.0.1:{one.port} ldaps://127.0.0.1:{one.tls_port}"
    with (folder / "slapd.log").open("wb") as log:
        server = subprocess.Popen([SLAPD, "-d", "none", "-f", config, "-h", addresses], stdout=log, stderr=log)
    try:
        wait_for(lambda: listens(one.port) and listens(one.tls_port), what="slapd")  # its PID file comes before that
        yield one
    finally:
        server.terminate()
        server.wait(60)
