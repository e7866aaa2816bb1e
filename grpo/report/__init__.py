"""Everything a user sees of a run: its directory, metrics, rollouts, terminal display, pictures and report.

Nothing here touches Ray, the engine or hydra: a report is made from the files of a run alone.
"""
