"""The names of our own tasks."""

from pathlib import Path

FOLDER = Path(__file__).parent / "tasks"
TASKS = sorted(file.stem for file in FOLDER.glob("*.yaml"))
"""Tasks whose data come from a folder or the hub; the names of the harness are its own."""
