"""Ways to hand a message on: SMTP over pooled connections, or a Maildir."""
