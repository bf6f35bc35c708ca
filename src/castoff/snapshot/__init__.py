"""Keeps file systems as stacks of snapshots."""
