"""The configuration of the private Postfix."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# All else has Postfix's default, such as the process limit and the junk and error counters.
_MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log
maillog_file_prefixes = {home}
myhostname = mx.{domain}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtp_host_lookup = native
disable_dns_lookups = yes
smtpd_peername_lookup = no
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = texthash:{home}/config/users
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = {tls_level}
smtpd_tls_chain_files = {certificate}
notify_classes =
"""

_MASTER = """\
{host}:{port}      inet       n - n -     -   smtpd
{tls_service}
pickup             unix       n - n 60    1   pickup
cleanup            unix       n - n -     0   cleanup
qmgr               unix       n - n 300   1   qmgr
tlsmgr             unix       - - n 1000? 1   tlsmgr
rewrite            unix       - - n -     -   trivial-rewrite
bounce             unix       - - n -     0   bounce
defer              unix       - - n -     0   bounce
trace              unix       - - n -     0   bounce
verify             unix       - - n -     1   verify
flush              unix       n - n 1000? 0   flush
proxymap           unix       - - n -     -   proxymap
proxywrite         unix       - - n -     1   proxymap
smtp               unix       - - n -     -   smtp
relay              unix       - - n -     -   smtp
showq              unix       n - n -     -   showq
error              unix       - - n -     -   error
retry              unix       - - n -     -   error
discard            unix       - - n -     -   discard
local              unix       - n n -     -   local
virtual            unix       - n n -     -   virtual
lmtp               unix       - - n -     -   lmtp
anvil              unix       - - n -     1   anvil
scache             unix       - - n -     1   scache
postlog            unix-dgram n - n -     1   postlogd
"""


def main_cf(home: Path, domain: str, uid: int, gid: int, certificate: Path | None) -> str:
    """Returns main.cf for an instance with its files in `home`, which delivers as this user."""
    level = "may" if certificate else "none"
    return _MAIN.format(home=home, domain=domain, uid=uid, gid=gid, tls_level=level, certificate=certificate or "")


def master_cf(host: str, port: int, tls_port: int) -> str:
    """Returns master.cf with a listener on `port`, and one for implicit TLS unless `tls_port` is 0."""
    tls_service = f"{host}:{tls_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes" if tls_port else ""
    return _MASTER.format(host=host, port=port, tls_service=tls_service)
