"""Weights from the learner to the engines: packed buckets over a process group of their own, verified by checksum."""
