"""How old a completion may be, as arithmetic. Steps are counted from 1; step s turns policy version s - 1 into s.

A group that is admitted while the engines hold version v has no token older than v: weights may arrive while it is
decoded, they never go back. Step s trains the policy of version s - 1, so a group of version v is at most

    staleness(s, v) = s - 1 - v

updates old in it, and max_staleness k lets it be trained on up to step v + k + 1, its deadline. Groups never miss their
deadline, because no more are admitted than fit: with n the next step to be put together and P groups a step, there is
room for (deadline - n + 1) P groups, and every group admitted earlier has an earlier deadline or the same. Taking the
earliest deadline first serves all of them (Liu and Layland 1973, https://doi.org/10.1145/321738.321743, for unit
tasks), as long as no step takes a younger group in the place of an older one that is still being sampled and would then
be left without any: for that one it waits. Nothing has to be thrown away for its age, so neither short completions nor
easy prompts are preferred.
"""

from __future__ import annotations


def staleness(step: int, policy_version: int) -> int:
    """Updates between `policy_version` and the policy that `step` trains."""
    return step - 1 - policy_version


def deadline(policy_version: int, max_staleness: int) -> int:
    """The last step that may train on what `policy_version` began."""
    return policy_version + max_staleness + 1


def room(*, policy_version: int, next_step: int, last_step: int, groups_per_step: int, max_staleness: int) -> int:
    """Groups that may be outstanding (being sampled, judged, or waiting) when one more is admitted, that one included.

    Args:
        policy_version: what the engines hold; with several, the oldest.
        next_step: the first step whose groups are not chosen yet.
        last_step: of the run; nothing is sampled for later ones.
    """
    last = min(deadline(policy_version, max_staleness), last_step)
    return max(0, last - next_step + 1) * groups_per_step
