"""Runs the command `relay` as `python -m relay`."""

from relay.cli import main

if __name__ == "__main__":
    main(prog_name="relay")
