"""One function per row schema: a row of a data source in, a `Task` out.

All of them raise `DataError` naming the field, or `LeftOut` for a row that is sound but no task; whoever read the row
adds the file and the line. The schemas are documented in docs/data.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from grpo.config import DataConfig, DataSchema
from grpo.data.fields import Row
from grpo.data.schemas.answers import gsm8k_task, reasoning_gym_task
from grpo.data.schemas.asserts import acecode_task, mbpp_task
from grpo.data.schemas.checks import humaneval_task, leetcode_task
from grpo.data.schemas.dialogues import hh_task, rlhflow_task
from grpo.data.schemas.instructions import dolly_task, instruction_task, magicoder_evol_task, magicoder_oss_task
from grpo.data.schemas.keel import keel_task
from grpo.data.schemas.programs import apps_task, synthetic1_task, taco_task
from grpo.data.schemas.suites import exercism_task, kodcode_task
from grpo.records import Task

READERS: Mapping[DataSchema, Callable[[Row, DataConfig], Task]] = {
    DataSchema.keel: keel_task,
    DataSchema.instruction: instruction_task,
    DataSchema.mbpp: mbpp_task,
    DataSchema.acecode: acecode_task,
    DataSchema.humaneval: humaneval_task,
    DataSchema.leetcode: leetcode_task,
    DataSchema.kodcode: kodcode_task,
    DataSchema.exercism: exercism_task,
    DataSchema.apps: apps_task,
    DataSchema.taco: taco_task,
    DataSchema.synthetic1: synthetic1_task,
    DataSchema.magicoder_evol: magicoder_evol_task,
    DataSchema.magicoder_oss: magicoder_oss_task,
    DataSchema.dolly: dolly_task,
    DataSchema.rlhflow: rlhflow_task,
    DataSchema.hh: hh_task,
    DataSchema.gsm8k: gsm8k_task,
    DataSchema.reasoning_gym: reasoning_gym_task,
}
