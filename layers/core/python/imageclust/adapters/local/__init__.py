"""Ports over files, SQLite and threads of one machine."""
