"""What `relay explain` shows: one message taken apart, or two beside each other, first as data and then as text."""
