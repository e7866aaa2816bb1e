"""Rows of each schema become tasks; what is missing or of the wrong type is named."""

import pytest

from grpo.config import DataConfig, DataSchema, Prefill
from grpo.data.functions import called_function, signature_of
from grpo.data.schemas import READERS
from grpo.errors import DataError

KEEL = {
    "id": "a-1",
    "level": 2,
    "prompt": "Write `add(a, b)`.",
    "entry_point": "add",
    "signature": "def add(a, b):\n",
    "tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    "setup": "import math",
    "solution": "def add(a, b):\n    return a + b\n",
    "domain": "sums",
}
MBPP_FULL = {
    "text": "Write a function to find the largest.",
    "code": "import math\r\ndef helper(x):\r\n  return x\r\ndef largest(xs, n = 1):\r\n  return helper(max(xs))",
    "task_id": 11,
    "test_setup_code": "xs = [1]\r\n",
    "test_list": ["assert largest([1, 2]) == 2", "assert set([largest([3])]) == {helper(3)}"],
    "challenge_test_list": ["assert largest([9]) == 9"],
}
MBPP_SANITIZED = {
    "source_file": "x.ipynb",
    "task_id": 12,
    "prompt": "Write a function to halve.",
    "code": "def halve(x: float) -> float:\n  return x / 2",
    "test_imports": ["import math", "import re"],
    "test_list": ["assert math.isclose(halve(3), 1.5)"],
}
ACECODE = {
    "id": "oss_7",
    "source": "oss",
    "question": "Write a function that doubles.",
    "test_cases": ["assert sorted(double([2])) == [4]", "assert other(1) == 1"],
    "inferences": [],
}


def read(row, schema=DataSchema.keel, **config):
    return READERS[schema](row, DataConfig(schema=schema, **config))


def test_keel_row_with_all_fields():
    task = read(KEEL)
    assert (task.task_id, task.domain, task.prefill) == ("a-1", "sums", "")
    assert task.messages == (("user", "Write `add(a, b)`."),)
    assert task.reference == {
        "tests": ("assert add(1, 2) == 3", "assert add(0, 0) == 0"),
        "setup": "import math",
        "entry_point": "add",
    }


def test_keel_row_with_required_fields_only():
    row = {"id": 7, "prompt": "p", "tests": ["assert True"], "level": None, "setup": None}
    task = read(row, domain="mine")
    assert (task.task_id, task.domain) == ("7", "mine")
    assert task.reference == {"tests": ("assert True",), "setup": "", "entry_point": None}


def test_keel_row_with_messages():
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    task = read({"id": 1, "messages": turns})
    assert task.messages == (("system", "s"), ("user", "u"))
    assert (task.domain, task.reference) == ("helpfulness", {})
    with pytest.raises(DataError, match="fields 'prompt' and 'messages': a task has one of the two"):
        read({"id": 1, "messages": turns, "prompt": "u"})


def test_keel_row_with_an_answer_and_any_reference():
    task = read({"id": 1, "prompt": "p", "answer": "4", "reference": {"rubric": ["be brief"]}})
    assert (task.domain, task.reference) == ("reasoning", {"answer": "4", "rubric": ["be brief"]})
    cases = [{"input": "1", "output": "2"}]
    task = read({"id": 1, "prompt": "p", "reference": {"form": "stdin", "cases": cases}})
    assert (task.domain, task.reference) == ("code", {"form": "stdin", "cases": cases})
    assert read({"id": 1, "prompt": "p"}, domain="mine").domain == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": {"tests": ["x"]}}, "field 'reference': 'tests' is a field of the row too; give it once"),
        (
            {"reference": {"form": "stdin", "cases": [{"input": "1"}]}},
            "field 'reference': cases[0]: needs input, output",
        ),
        ({"reference": {"form": "tests"}}, "field 'reference': form='tests': there are asserts"),
        ({"reference": ["x"]}, "field 'reference': expected an object, found list"),
        ({"answer": 4}, "field 'answer': expected a string, found int '4'"),
    ],
)
def test_a_reference_that_no_reward_can_read(change, message):
    with pytest.raises(DataError) as caught:
        read({**KEEL, **change})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("name", "meant"), [("test", "tests"), ("answers", "answer"), ("entrypoint", "entry_point")])
def test_a_misspelt_optional_field_is_no_field_to_ignore(name, meant):
    row = {"id": 1, "prompt": "p", name: "x"}
    with pytest.raises(DataError, match=f"field '{name}': did you mean '{meant}'"):
        read(row)
    assert read({**KEEL, "source": "x", "notes": "y"}), "other fields are ignored"


def test_prefill():
    assert read(KEEL, prefill=Prefill.fence).prefill == "```python\n"
    # No trailing newline, though the field has one: the tokenizer merges it with the indent that is to be sampled.
    assert read(KEEL, prefill=Prefill.signature).prefill == "```python\ndef add(a, b):"
    with pytest.raises(DataError, match=r"no signature.*data\.prefill=fence"):
        read({k: v for k, v in KEEL.items() if k != "signature"}, prefill=Prefill.signature)


def test_mbpp_full_layout():
    task = read(MBPP_FULL, DataSchema.mbpp, prefill=Prefill.signature)
    assert task.task_id == "mbpp-11"
    expected = "Write a function to find the largest.\nUse this signature: `def largest(xs, n=1):`"
    assert task.messages == (("user", expected),)
    assert task.prefill == "```python\ndef largest(xs, n=1):"
    assert task.reference == {
        "tests": tuple(MBPP_FULL["test_list"]),
        "setup": "xs = [1]\n",
        "entry_point": "largest",
    }


def test_mbpp_sanitized_layout():
    task = read(MBPP_SANITIZED, DataSchema.mbpp)
    assert task.messages[0][1].endswith("Use this signature: `def halve(x: float) -> float:`")
    assert task.reference["setup"] == "import math\nimport re"
    assert task.reference["entry_point"] == "halve"


def test_mbpp_without_a_function_shows_the_first_test():
    row = {**MBPP_FULL, "code": "largest = max"}
    task = read(row, DataSchema.mbpp)
    assert task.messages[0][1].endswith("\nYour code must pass this test: `assert largest([1, 2]) == 2`")
    assert task.reference["entry_point"] is None
    with pytest.raises(DataError, match=r"data\.prefill=fence"):
        read(row, DataSchema.mbpp, prefill=Prefill.signature)


def test_acecode_row():
    task = read(ACECODE, DataSchema.acecode)
    assert (task.task_id, task.messages) == ("oss_7", (("user", ACECODE["question"]),))
    assert task.reference == {"tests": tuple(ACECODE["test_cases"]), "setup": "", "entry_point": "double"}


REQUIRED = [
    (DataSchema.keel, KEEL, ["id", "prompt"]),
    (DataSchema.mbpp, MBPP_FULL, ["text", "code", "test_list", "task_id"]),
    (DataSchema.acecode, ACECODE, ["id", "question", "test_cases"]),
]


@pytest.mark.parametrize(("schema", "row", "name"), [(s, r, n) for s, r, names in REQUIRED for n in names])
def test_missing_field_is_named(schema, row, name):
    rest = {key: value for key, value in row.items() if key != name}
    with pytest.raises(DataError, match=f"missing field '{name}' .*the row has .*data.schema"):
        read(rest, schema)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": True}, "field 'id': expected a string, found bool 'True'"),
        ({"id": ""}, "field 'id': empty"),
        ({"prompt": None}, "field 'prompt': expected a string, found null"),
        ({"prompt": " \n"}, "field 'prompt': empty"),
        ({"tests": "assert True"}, "field 'tests': expected a list of strings, found str 'assert True'"),
        ({"tests": ["assert True", 3]}, "field 'tests': expected a list of strings, found int '3' at index 1"),
        ({"tests": []}, "field 'tests': an empty list; a task needs at least one test"),
        ({"level": "1"}, "field 'level': expected an integer, found str '1'"),
        ({"level": True}, "field 'level': expected an integer, found bool 'True'"),
        ({"setup": 1}, "field 'setup': expected a string, found int '1'"),
        ({"solution": 1}, "field 'solution': expected a string, found int '1'"),
        ({"entry_point": 1}, "field 'entry_point': expected a string, found int '1'"),
        ({"domain": 1}, "field 'domain': expected a string, found int '1'"),
        ({"signature": "add(a, b)"}, "field 'signature': 'add(a, b)' is not the first line of a function"),
    ],
)
def test_wrong_type_is_named(change, message):
    with pytest.raises(DataError) as caught:
        read({**KEEL, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "tests", "expected"),
    [
        ("def a(): pass\ndef b(): pass", ["assert b() == a()", "assert b() == 1"], "b"),
        ("def a(): pass\ndef b(): pass", ["assert a() == b()"], "b"),  # a tie: helpers come first
        ("def a(): pass", ["assert c() == 1"], None),
        ("def a(:", ["assert a() == 1"], None),
        ("def a(): pass", ["assert a( == 1", "assert a() == 1"], "a"),
        (None, ["assert len(f(g(1))) == 2"], "f"),
        (None, ["assert 1 == 1"], None),
        (None, ["assert \x00"], None),
    ],
)
def test_called_function(code, tests, expected):
    assert called_function(tests, code) == expected


def test_signature_of_the_last_definition():
    code = "def f(a): pass\nasync def g(*, x: int = 1) -> list[int]: pass\ndef f(a, b=(1, 2), *c, **d): pass\n"
    assert signature_of(code, "f") == "def f(a, b=(1, 2), *c, **d):"
    assert signature_of(code, "g") == "async def g(*, x: int=1) -> list[int]:"
    assert signature_of(code, "h") is None
