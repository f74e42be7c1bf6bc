"""Finding messages: mbox of every dialect, Maildir, folders; and what is there that is no mail or cannot be read."""

from __future__ import annotations

import mailbox
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts.archived import as_mbox, notices, write_folder, write_maildir
from parts.corpus import CORPUS, MESSAGES

from relay.judge.mime.parser import HEADER_LIMIT
from relay.simulate import archive as archive_module
from relay.simulate.archive import Archive
from relay.simulate.mbox import unpack

FROM = b"From a@b Sun Mar  1 10:57:00 2026\n"
HEAD = b"Date: Sun, 1 Mar 2026 10:57:00 +0000\nSubject: x\n"


def read(*paths: Path) -> Archive:
    found = Archive()
    for _ in found.index(paths):
        pass
    return found


def contents(*paths: Path) -> list[bytes]:
    with read(*paths) as found:
        assert found.problems == []
        messages = [found.read(number) for number in range(len(found))]
        return [message.content.replace(b"\r\n", b"\n") for message in messages if message]


def mbox(path: Path, octets: bytes) -> Path:
    file = path / "mbox"
    file.write_bytes(octets)
    return file


# mbox


def test_every_message_of_an_mbox_comes_out_as_it_went_in(tmp_path: Path) -> None:
    sent = notices(40)
    assert contents(mbox(tmp_path, as_mbox(sent))) == [message.content for message in sent]


def test_a_body_may_be_anything_and_lie_across_blocks(tmp_path: Path) -> None:
    body = b"From here on\n\nFrom there\n>From old\n\nFrom dusk: 10:00 until dawn, 2026\n" + b"x" * 70 + b"\n"
    body += b"\n\n From\nfrom\n" + b"line\n" * 300_000
    quoted = body.replace(b"\n>From", b"\n>>From").replace(b"\nFrom", b"\n>From").removeprefix(b"From")
    octets = b"".join(FROM + HEAD + b"\n>From" + quoted + b"\n" for _ in range(4))
    assert contents(mbox(tmp_path, octets)) == [HEAD + b"\n" + body] * 4


@pytest.mark.parametrize("before", [0, 1, 2, 5, 30, 36, 45])
@pytest.mark.parametrize("block", [HEADER_LIMIT, HEADER_LIMIT - 1024 + (1 << 20)])
def test_a_message_may_begin_across_the_end_of_a_block(tmp_path: Path, block: int, before: int) -> None:
    start = FROM + HEAD + b"\n"
    one = start + b"x" * (block - before - len(start) - 2) + b"\n\n"
    assert len(contents(mbox(tmp_path, one + FROM + HEAD + b"\ny\n\n"))) == 2


@pytest.mark.parametrize("blanks", [b"", b"\n"])
def test_content_length_is_believed_where_it_leads_to_the_next_message(tmp_path: Path, blanks: bytes) -> None:
    body = b"hello\n\n" + FROM + b"Subject: not a message\n\nbye\n"
    one = FROM + HEAD + b"Content-Length: %d\n\n" % len(body) + body + blanks
    assert len(contents(mbox(tmp_path, one * 3))) == 3
    wrong = one.replace(b"Content-Length: ", b"Content-Length: 9")
    assert len(contents(mbox(tmp_path, (wrong + b"\n") * 3))) == 6  # the quoted one too: no better is known


def test_an_mbox_of_windows_has_crlf(tmp_path: Path) -> None:
    sent = notices(5)
    assert contents(mbox(tmp_path, as_mbox(sent).replace(b"\n", b"\r\n"))) == [message.content for message in sent]


def test_what_the_standard_library_wrote_is_read(tmp_path: Path) -> None:
    bodies = [b"plain\n", b"From me\nto you\n", b"\n\n", b"\nFrom a@b Sun Mar  1 10:57:00 2026\nTo: you\n\nx\n"]
    box = mailbox.mbox(tmp_path / "box")
    for body in bodies:
        box.add(HEAD + b"\n" + body)
    box.close()
    # It quotes and does not say so: what was quoted before cannot be told from that.
    assert contents(tmp_path / "box") == [HEAD + b"\n" + body for body in bodies]


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"From ", b"\n", b"\r\n", FROM, HEAD, b"a", b"Content-Length: 7\n", b"--b", b">"])))
def test_no_mbox_breaks_it_and_no_byte_is_read_twice(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    file = mbox(tmp_path_factory.getbasetemp(), FROM + b"".join(parts))
    with read(file) as found:
        messages = [found.read(number) for number in range(len(found))]
        assert sum(len(message.content) for message in messages if message) <= 2 * file.stat().st_size


@pytest.mark.parametrize(
    "line",
    [
        b"text\n" + FROM + b"To: you\n",
        b"\n" + FROM + b"no field\n",
        b"\nFrom me\nTo: you\n",
        b"\n " + FROM + b"To: you\n",
    ],
)
def test_what_only_looks_like_the_beginning_of_a_message_is_none(tmp_path: Path, line: bytes) -> None:
    assert len(contents(mbox(tmp_path, FROM + HEAD + b"\n" + line + b"\n" + FROM + HEAD + b"\nx\n\n"))) == 2


def test_only_one_quote_is_taken_off() -> None:
    assert unpack(FROM + b"A: b\n\n>From x\n>>From y\n> From z\n\n").content == b"A: b\n\nFrom x\n>From y\n> From z\n"


@pytest.mark.parametrize("lost", [1, 30, 300])
def test_an_mbox_that_was_cut_off_is_read_up_to_there(tmp_path: Path, lost: int) -> None:
    sent = notices(3)
    octets = as_mbox(sent).rstrip(b"\n")[:-lost]
    with read(mbox(tmp_path, octets)) as found:
        assert len(found) == 2
        [problem] = found.problems
    assert problem.reason == "the mbox ends in the middle of this message, which is left out"
    assert problem.place == f"{tmp_path}/mbox at byte {len(as_mbox(sent[:2]))}"


@pytest.mark.parametrize("end", [b"From a@b Sun Mar  1 10:57:00 2026\nSubject: y", FROM + b"Subject: y\n\nhalf a li"])
def test_a_plain_message_that_was_cut_off_is_left_out(tmp_path: Path, end: bytes) -> None:
    with read(mbox(tmp_path, FROM + HEAD + b"\nbody\n\n" + end)) as found:
        assert (len(found), len(found.problems)) == (1, 1)


@pytest.mark.parametrize(
    "end",
    [
        b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\n\nhello\n',
        b"a line without a colon\n\nhello\n",
        b"Subject: y\n",
    ],
)
def test_a_malformed_last_message_is_not_cut_off(tmp_path: Path, end: bytes) -> None:
    with read(mbox(tmp_path, FROM + HEAD + b"\nbody\n\n" + FROM + HEAD + end + b"\n")) as found:
        assert (len(found), found.problems) == (2, [])


def test_an_mbox_whose_last_blank_line_is_missing_is_whole(tmp_path: Path) -> None:
    sent = notices(2)
    assert len(contents(mbox(tmp_path, as_mbox(sent).rstrip(b"\n")))) == 2


def test_an_empty_mbox_holds_nothing_and_is_no_problem(tmp_path: Path) -> None:
    assert contents(mbox(tmp_path, b"")) == []


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    file = mbox(tmp_path, as_mbox(notices(2)))
    with read(file) as found:
        file.write_bytes(file.read_bytes()[:5000])
        assert [found.read(number) for number in range(2)] == [None, None]
        assert {problem.reason for problem in found.problems} == {"it became shorter while it was read"}


# Maildir and folders


def test_a_maildir_gives_what_is_in_cur_and_new(tmp_path: Path) -> None:
    sent = notices(9)
    write_maildir(tmp_path / "Maildir", sent)
    (tmp_path / "Maildir/tmp/1772362620.half").write_bytes(sent[0].content)
    (tmp_path / "Maildir/dovecot.index").write_bytes(b"\x00")
    (tmp_path / "Maildir/new/.hidden").write_bytes(sent[0].content)
    assert sorted(contents(tmp_path / "Maildir")) == sorted(message.content for message in sent)


def test_maildirs_below_a_folder_are_found(tmp_path: Path) -> None:
    write_maildir(tmp_path / "vmail/anna/Maildir", notices(3))
    write_maildir(tmp_path / "vmail/anna/Maildir/.Lists", notices(4))
    write_maildir(tmp_path / "vmail/bert", notices(5))
    assert len(contents(tmp_path / "vmail")) == 12


def test_a_folder_of_files_is_read_to_its_ground_and_no_mail_is_skipped(tmp_path: Path) -> None:
    write_folder(tmp_path / "sent", notices(7))
    (tmp_path / "sent/notes.txt").write_text("Note: this is not\n\nFrom: me\n")
    (tmp_path / "sent/below/empty.eml").touch()
    (tmp_path / "sent/picture.jpg").write_bytes(os.urandom(100))
    (tmp_path / "sent/box").write_bytes(as_mbox(notices(2)))
    os.mkfifo(tmp_path / "sent/pipe")
    with read(tmp_path / "sent") as found:
        assert (len(found), found.files.skipped, found.problems) == (9, 4, [])


def test_the_corpus_is_mail() -> None:
    with read(CORPUS) as found:
        files = len(MESSAGES)
        assert len(found) + found.files.skipped >= files
        assert found.problems == []
        assert len(found) + found.date_sources["none"] > files * 0.9


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\x1b[31m\n.eml"
    Path(os.fsdecode(name)).write_bytes(notices(1)[0].content)
    assert len(contents(tmp_path)) == 1
    assert len(contents(Path(os.fsdecode(name)))) == 1


def test_links_that_go_round_end_and_no_file_counts_twice(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", notices(4))
    (tmp_path / "a/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/below/up").symlink_to("..")
    (tmp_path / "a/again.eml").symlink_to("0.eml")
    (tmp_path / "a/hard.eml").hardlink_to(tmp_path / "a/3.eml")
    with read(tmp_path / "a", tmp_path / "a/0.eml", tmp_path / "a") as found:
        assert (len(found), found.files.repeated, found.problems) == (4, 3, [])


def test_what_cannot_be_read_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, notices(2))
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        with read(tmp_path, tmp_path / "missing") as found:
            reasons = {problem.place.removeprefix(f"{tmp_path}/"): problem.reason for problem in found.problems}
            assert len(found) == 2
    assert reasons == {
        "self": "Too many levels of symbolic links",
        "gone": "No such file or directory",
        "door": "No such device or address",
        "missing": "No such file or directory",
    }


@pytest.mark.parametrize(
    ("octets", "reason"),
    [(b"\x1f\x8b\x08", "it is compressed; decompress it first"), (b"hello\n", "it does not look like mail")],
)
def test_a_named_file_that_is_no_mail_is_a_problem(tmp_path: Path, octets: bytes, reason: str) -> None:
    with read(mbox(tmp_path, octets)) as found:
        assert [problem.reason for problem in found.problems] == [reason]


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with read(tmp_path / "pipe") as found:
        assert [problem.reason for problem in found.problems] == ["not a regular file; save it to one first"]


def test_a_message_that_is_too_large_is_named_and_left_out(tmp_path: Path) -> None:
    sizes = [100, archive_module.LARGEST, 100]
    with (tmp_path / "mbox").open("wb") as file:
        for size in sizes:
            file.write(FROM + HEAD + b"\n" + b"x" * size + b"\n\n")
    with read(tmp_path / "mbox") as found:
        assert len(found) == 2
        [problem] = found.problems
    assert problem.reason == "a message of 64 MiB; messages over 64 MiB are left out"
    assert problem.place.endswith(f"mbox at byte {len(FROM + HEAD) + 103}")


# Dates


def test_without_any_date_a_maildir_file_has_that_of_its_name_or_its_own(tmp_path: Path) -> None:
    (tmp_path / "cur").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "cur/1772362620.x").write_bytes(b"Subject: x\n\n")
    (tmp_path / "cur/other").write_bytes(b"Subject: x\n\n")
    os.utime(tmp_path / "cur/other", (5, 7))
    (tmp_path / "0.eml").write_bytes(b"Subject: x\n\n")
    with read(tmp_path / "cur", tmp_path / "0.eml") as found:
        assert list(found.dates) == [1772362620, 7]
        assert found.date_sources == {"file name": 1, "file time": 1, "none": 1}


def test_messages_are_put_in_order_by_date(tmp_path: Path) -> None:
    sent = notices(20)
    with read(mbox(tmp_path, as_mbox(sent))) as found:
        assert [found.dates[number] for number in found.in_order()] == sorted(m.at.timestamp() for m in sent)


def test_a_file_may_be_of_a_year_without_a_name(tmp_path: Path) -> None:
    """In memory times have no limit, other file systems have one before the year 9999."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        (tmp_path / "cur").symlink_to(memory)
        (tmp_path / "cur/other").write_bytes(b"Subject: x\n\n")
        os.utime(tmp_path / "cur/other", (1 << 45, 1 << 45))
        with read(tmp_path / "cur") as found:
            assert list(found.dates) == [253402300799.0]
