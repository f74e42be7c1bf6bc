"""SMTP conversations as data, and what plays them. `player.py` tells how the files are written."""
