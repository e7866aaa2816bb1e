"""Pluggable rewards: an attempt goes in, an honest verdict (a value, failed, or absent) comes out."""
