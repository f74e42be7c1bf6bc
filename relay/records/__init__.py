"""What is kept about suppressions: records in the store, copies in a Maildir, and how both are found again."""
