"""`relay demo`: what AVideo sends under load, through a real relay, counted at a catching upstream."""
