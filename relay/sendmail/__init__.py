"""What `relay sendmail` does: it completes the mail of a local program and hands it to the relay over SMTP.

`relay.cli.sendmail` uses it. It imports `relay.runtime.unix_socket` and the standard library only: a program waits for
every millisecond of its start.
"""
