"""The URLs of upstream and store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.claims.redis.servers import Address, RedisServers, Topology
from relay.settings.addresses import HostPort
from relay.settings.urls import (
    MaildirUrl,
    MemoryUrl,
    RedisUrl,
    Security,
    SmtpUrl,
    SqliteUrl,
    mask,
    parse_keep_or_none,
    parse_store,
    parse_upstream,
)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("smtp://mail", SmtpUrl(Security.NONE, HostPort("mail", 25))),
        ("smtp+starttls://mail", SmtpUrl(Security.STARTTLS, HostPort("mail", 587))),
        ("smtps://mail/", SmtpUrl(Security.TLS, HostPort("mail", 465))),
        ("smtp://[::1]:2500", SmtpUrl(Security.NONE, HostPort("::1", 2500))),
        ("smtps://[::1]", SmtpUrl(Security.TLS, HostPort("::1", 465))),
        ("smtps://jo%40example.com@mail:1", SmtpUrl(Security.TLS, HostPort("mail", 1), "jo@example.com")),
        ("maildir:/var/mail/x", MaildirUrl(Path("/var/mail/x"))),
        ("maildir:mail", MaildirUrl(Path("mail"))),
    ],
)
def test_upstreams(text: str, url: object) -> None:
    assert parse_upstream(text) == url
    assert parse_upstream(str(url)) == url
    assert parse_upstream(url) is url


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_any_user_survives_being_written(user: str) -> None:
    url = SmtpUrl(Security.TLS, HostPort("mail", 465), user)
    assert parse_upstream(str(url)) == url


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("smtp://user:xyzzy@mail", "write smtp://USER@HOST and put .* the file that upstream.password_file names"),
        ("smtps://user:xyz/zy@mail", "write smtps://USER@HOST and put"),
        ("smpt://mail", "did you mean smtp:[?] Known: smtp://HOST"),
        ("SMTPS://mail", "did you mean smtps:"),
        ("gopher://mail", '"gopher" is not known; write smtp://HOST.* or maildir:PATH'),
        ("mail.example.com:25", "the kind is missing; write smtp://HOST"),
        ("mail", "the kind is missing; write smtp://HOST"),
        ("", "the kind is missing; write smtp://HOST"),
        ("smtp:mail", '"//" is missing; write smtp://HOST'),
        ("smtp://", "the host is missing"),
        ("smtp://mail/inbox", "nothing may follow the host and port; write smtp://HOST"),
        ("smtp://mail?tls=1", "nothing may follow the host and port"),
        ("smtp://mail:0", "port 0 cannot be reached; write smtp://mail"),
        ("smtp://mail:x", "not HOST:PORT"),
        ("smtp://[::1", "not a URL; write smtp://HOST"),
        ("smtp://::1", "an IPv6 address needs brackets"),
        ("maildir:", "the path is missing; write maildir:PATH"),
        ("maildir:///tmp/x", "write maildir:/tmp/x"),
        ("maildir:~/x", "write the whole path"),
        ("smtp://ma\nil", "holds a control character"),
    ],
)
def test_a_wrong_upstream_has_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as error:
        parse_upstream(text)
    assert "zy" not in str(error.value)
    assert "xyz" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("sqlite:/var/lib/relay.db", SqliteUrl(Path("/var/lib/relay.db"))),
        ("memory:", MemoryUrl()),
    ],
)
def test_stores(text: str, url: object) -> None:
    assert parse_store(text) == url
    assert str(url) == text
    assert parse_store(url) is url


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("redis://127.0.0.1", RedisServers((Address("127.0.0.1", 6379),))),
        ("redis://h/", RedisServers((Address("h", 6379),))),
        ("redis://relay@h?db=3", RedisServers((Address("h", 6379),), user="relay", database=3)),
        ("rediss://[::1]:6380/2", RedisServers((Address("::1", 6380),), database=2, tls={})),
        (
            "rediss://h?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=no",
            RedisServers((Address("h", 6379),), tls={"ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": False}),
        ),
        ("unix:///run/redis.sock?db=1", RedisServers(socket="/run/redis.sock", database=1)),
        ("unix:///run/a,b%20c.sock", RedisServers(socket="/run/a,b c.sock")),
        ("redis+sentinel://h/mymaster", RedisServers((Address("h", 26379),), Topology.SENTINEL, service="mymaster")),
        (
            "redis+sentinel://h:1,[::1]:2,i/my%2Fname?db=1",
            RedisServers(
                (Address("h", 1), Address("::1", 2), Address("i", 26379)),
                Topology.SENTINEL,
                service="my/name",
                database=1,
            ),
        ),
        (
            "redis+cluster://h:7000,[::1]:7001,i",
            RedisServers((Address("h", 7000), Address("::1", 7001), Address("i", 6379)), Topology.CLUSTER),
        ),
    ],
)
def test_redis_servers(text: str, servers: RedisServers) -> None:
    url = parse_store(text)
    assert url == RedisUrl(text, servers)
    assert str(url) == text
    assert parse_store(str(url)) == url
    assert parse_store(url) is url


def test_both_passwords_of_sentinel_are_decoded() -> None:
    url = parse_store("redis+sentinel://relay:se%40s%2Fame@h,i/s?sentinel_password=open%25word")
    assert isinstance(url, RedisUrl)
    assert (url.servers.user, url.servers.password) == ("relay", "se@s/ame")
    assert url.servers.sentinel_password == "open%word"
    assert "ame" not in repr(url)
    assert "word" not in repr(url).replace("password", "")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("redis+sentinel://h:26379", "the name of the service is missing; write for example redis[+]sentinel://HOST"),
        ("redis+sentinel://h,i/", "the name of the service is missing"),
        ("redis+sentinel://h,i/s/0", "only the name of the service may follow the hosts; write .*/SERVICE[?]db=0"),
        ("redis+sentinel://:xyzzy@h,/s", "the host is missing"),
        ("redis+sentinel://:xyz/zy@h,i/s", "percent-encoded; write %2F"),
        ("redis+sentinel://h,i:x/s", "not HOST:PORT"),
        ("redis+sentinel://h,i:0/s", "port 0 cannot be reached; correct i:0"),
        ("redis+sentinel://h/s?db=x", 'the database is a number; write for example "db=0"'),
        ("redis+sentinel://h/s?sentinel_password=***", "the password is masked"),
        ("redis+sentinel://h/s?ssl_certfile=x", '"ssl_certfile" is not known; leave it out .known: db, sentinel_pass'),
        ("redis+cluster://h:7000,i/0", "a cluster has no databases; write redis[+]cluster://HOST without"),
        ("redis+cluster://h?db=0", 'a cluster has no databases; leave "db" out'),
        ("redis+cluster://h?retry=1", 'option "retry" is not known; leave it out$'),
        ("redis+clustre://h", "did you mean redis[+]cluster:"),
        ("redis://h,i", "takes one host; write redis[+]sentinel://HOST,HOST/SERVICE or redis[+]cluster://HOST,HOST"),
        ("redis://h?db=first", "the database is a number"),
        ("reddis://h", "did you mean redis:[?] Known: sqlite:PATH"),
        ("postgres://h", '"postgres" is not known; .*sqlite:PATH.* or memory:'),
        ("/var/lib/relay.db", "the kind is missing; write sqlite:PATH"),
        ("memory:x", 'write "memory:"'),
        ("sqlite::memory:", 'SQLite in memory is not offered; write "memory:"'),
        ("sqlite:///var/relay.db", "write sqlite:/var/relay.db"),
        ("sqlite:", "the path is missing; write sqlite:PATH"),
        ("redis://", "the host is missing"),
        ("redis://h/zero", "only the number of a database"),
        ("redis://:xyz/zy@h", "percent-encoded; write %2F"),
        ("redis://h:12?xyzzy@h", "percent-encoded; write %2F"),
        ("redis://:***@h", 'the password is masked; write the real one in place of "[*]{3}"'),
        ("redis://h?password=xyzzy", "write the password as :PASSWORD@ before the host"),
        ("redis://h?pass=xyzzy", "write the password as :PASSWORD@ before the host"),
        ("redis://h?xyzzy", "an option without a value is not known; write the password as :PASSWORD@"),
        ("redis://:xyzzy@h?ssl_keyfile=x", 'option "ssl_keyfile" is for TLS; write rediss://HOST'),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs is one of required, optional, none"),
        ("http://:xyzzy@h", '"http" is not known; write sqlite:PATH'),
        ("redis://:xyzzy@h:x", "not HOST:PORT"),
        ("redis://h?retry=9", 'option "retry" is not known; leave it out .known: db'),
        ("unix://", "the path of the socket is missing; write for example unix:///run/redis/redis.sock"),
        ("unix://run/redis.sock", "the path of the socket is missing"),
    ],
)
def test_a_wrong_store_has_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as error:
        parse_store(text)
    assert "zy" not in str(error.value)
    assert "xyz" not in str(error.value)


def test_a_redis_password_is_used_and_never_shown() -> None:
    url = parse_store("redis://relay:xyzzy@h:6379/0")
    assert isinstance(url, RedisUrl)
    assert url.url == "redis://relay:xyzzy@h:6379/0"
    assert (url.servers.user, url.servers.password) == ("relay", "xyzzy")
    assert str(url) == "redis://relay:***@h:6379/0"
    assert "xyzzy" not in repr(url)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:xyz:z/@y@h", "redis://:***@h"),
        ("user:xyzzy@h", "user:***@h"),
        (
            "redis+sentinel://u:xyz,zy@h,i/s?sentinel_password=x&db=1",
            "redis+sentinel://u:***@h,i/s?sentinel_password=***&db=1",
        ),
        ("redis+cluster://:xyzzy@h:7000,i", "redis+cluster://:***@h:7000,i"),
        ("unix:///s?password=xyzzy&db=0", "unix:///s?password=***&db=0"),
        ("smtp://user@[::1]:25", "smtp://user@[::1]:25"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("127.0.0.1:25", "127.0.0.1:25"),
    ],
)
def test_masking_reaches_badly_written_urls(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_copies_are_kept_in_a_maildir_or_not_at_all() -> None:
    assert parse_keep_or_none("") is None
    assert parse_keep_or_none("maildir:/kept") == MaildirUrl(Path("/kept"))
    for text in ("/kept", "sqlite:/kept", "maildir"):
        with pytest.raises(ValueError, match="only a Maildir can keep messages; write maildir:PATH"):
            parse_keep_or_none(text)
    with pytest.raises(ValueError, match='a path follows without "//"; write maildir:/kept'):
        parse_keep_or_none("maildir:///kept")
