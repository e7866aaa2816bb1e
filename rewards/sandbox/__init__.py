"""Runs model-written Python in a process of its own, under limits. `pool.Sandbox` is the way in."""
