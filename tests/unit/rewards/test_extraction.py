"""Which part of an answer is the program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.extraction import extract_code, first_name
from rewards.syntax import parse

F = "def f(x):\n    return x\n"
G = "def g(x):\n    return f(x) + 1\n"
METHOD = "class Solution:\n    def f(self, x):\n        return x\n"
DOCSTRING = 'def f(x):\n    """Like so:\n\n```\nf(1)\n```\n    """\n    return x\n'


def indented(code: str, by: str) -> str:
    return "".join(by + line for line in code.splitlines(keepends=True))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(f"Sure!\n```python\n{F}```\nDone.", F, id="closed"),
        pytest.param(f"```python\n{F}", F, id="unclosed"),
        pytest.param(f"```\n{F}```", F, id="untagged"),
        pytest.param(f"```Python3\n{F}```", F, id="other spelling"),
        pytest.param(f"``` python title=a.py\n{F}```", F, id="info string"),
        pytest.param(f"~~~python\n{F}~~~", F, id="tildes"),
        pytest.param(f"`````python\n{F}`````", F, id="longer fence"),
        pytest.param(f"````python\n{F}```\n````", F + "```\n", id="a shorter fence closes nothing"),
        pytest.param(f"~~~python\n{F}```\n~~~", F + "```\n", id="another fence closes nothing"),
        pytest.param(f"````markdown\nSee:\n```python\n{F}```\n````", F, id="within Markdown"),
        pytest.param(f"So: ```python\n{F}```", F, id="fence after text"),
        pytest.param("So: ```python f = lambda x: x```", "f = lambda x: x\n", id="all on one line"),
        pytest.param(f"```python\r\n{F}```".replace("\n", "\r\n"), F, id="other line ends"),
        pytest.param(F, F, id="no fence: the whole text"),
        pytest.param("", "", id="empty"),
        pytest.param(f"```python\n{F}```\n```python\nprint(f(1))\n```", F, id="usage in a later block"),
        pytest.param(f"```python\ndef f(x): 0\n```\nBetter:\n```python\n{F}```", F, id="the last definition wins"),
        pytest.param(f"```bash\npip install f\n```\n```python\n{F}```\n```text\n1\n```", F, id="other languages"),
        pytest.param(f"```python\n```python\n{F}```", F, id="prefilled fence repeated"),
        pytest.param(f"```python\ndef f(x):\n```python\n{F}```", F, id="prefilled fence and signature repeated"),
        pytest.param(f"1. Like so:\n   ```python\n{indented(F, '   ')}   ```\n2. That.", F, id="in a list"),
        pytest.param(f"- So:\n```python\n{indented(F, '    ')}```", F, id="indented within a flush fence"),
        pytest.param("```python\ndef f(x): return 1```", "def f(x): return 1\n", id="fence on the last line"),
        pytest.param("```python\nf = lambda x: x\n```\n```python\n1\n```", "f = lambda x: x\n", id="assignment"),
        pytest.param("```python\ndef f(x):\n    return (\n```\nNo.", "def f(x):\n    return (\n", id="truncated"),
        pytest.param("```python\n\n```\n", "```python\n\n```\n", id="blank block: the whole text, which won't parse"),
        pytest.param(f"```python\n{DOCSTRING}```\nIt works.", DOCSTRING, id="fences in a docstring"),
        pytest.param(f"```\n{F}```\nExample:\n```\n[1, 2]\n```", F, id="output in an untagged block"),
        pytest.param(
            f"<think>\n```python\ndef f(x): 0\n```\n</think>\n{F}", "\n" + F, id="thought in a block, answer without"
        ),
        pytest.param(
            f"First\n```python\ndef f(x): 0\n```</think>```python\n{F}```", F, id="thought opened by the prompt"
        ),
        pytest.param(f"<think>```python\n{F}```\n</think>\n\nDone!", "\n\nDone!", id="only thought"),
        pytest.param(f"<think>Well.\n```python\n{F}```", F, id="thought that never ends"),
        pytest.param(
            "```python\ndef f(x):\n    return x.split('</think>')\n```",
            "def f(x):\n    return x.split('</think>')\n",
            id="the tag in a string",
        ),
        pytest.param("```python\n>>> def f(x):\n...     return x\n...\n>>> f(1)\n1\n```", F + "\nf(1)\n", id="session"),
        pytest.param(
            'def f(x):\n    """Same."""\n    return x\n```\nThis gives x back.\n',
            'def f(x):\n    """Same."""\n    return x\n',
            id="prefilled signature without a fence, closed",
        ),
        pytest.param(f"Here it is:\n\n{F}\nIt returns x, as you wanted.", F, id="prose around unfenced code"),
        pytest.param(f"{F}\ndef g(x):\n    return (", f"{F}\ndef g(x):\n    return (", id="unfenced and truncated"),
        pytest.param(f"```python\n{METHOD}```\n```python\nprint(Solution().f(1))\n```", METHOD, id="a method"),
        pytest.param(
            f"```python\n{METHOD}```\n```python\n{F}```\n```python\n{METHOD}```", F, id="function over method"
        ),
        pytest.param(
            f"```python\n{F}\nif __name__ == '__main__':\n    print(f(1))\n```",
            f"{F}\nif __name__ == '__main__':\n    print(f(1))\n",
            id="main block",
        ),
    ],
)
def test_extract(answer: str, expected: str) -> None:
    assert extract_code(answer, "f") == expected


@pytest.mark.parametrize(
    ("blocks", "kept"),
    [
        pytest.param([F, G], [F, G], id="a helper"),
        pytest.param(
            ["import math\n", "def h(): return f(2)\n", F, "def g(x): return h() + math.pi\n"], [0, 1, 2, 3], id="chain"
        ),
        pytest.param(["print('hi')\n", F, "y = 2\n", G], [F, G], id="only what is needed"),
        pytest.param([G, "def g(x): return 1\n"], ["def g(x): return 1\n"], id="nothing needed"),
        pytest.param(["def f(:\n", G], [G], id="a helper that does not parse"),
        pytest.param(
            [F, "def g(x):\n    f = abs\n    return f(x)\n"], ["def g(x):\n    f = abs\n    return f(x)\n"], id="local"
        ),
    ],
)
def test_earlier_blocks_that_are_needed_come_first(blocks: list[str], kept: list[str | int]) -> None:
    answer = "\nThen\n".join(f"```python\n{block}```" for block in blocks)
    expected = [blocks[part] if isinstance(part, int) else part for part in kept]
    assert extract_code(answer, "g") == "\n".join(expected)


def test_future_imports_stay_in_front() -> None:
    code = extract_code(f"```python\n{F}```\n```python\nfrom __future__ import annotations\n{G}```", "g")
    assert code.startswith("from __future__ import annotations\n")
    compile(code, "answer", "exec")


def test_a_bash_block_is_never_joined() -> None:
    assert extract_code(f"```bash\nf = 1\n```\n```python\n{G}```", "g") == G


def test_without_the_entry_point_the_last_block_counts() -> None:
    answer = "```python\na = 1\n```\n```python\nb = 2\n```"
    assert extract_code(answer, "f") == extract_code(answer, None) == "b = 2\n"


def test_a_program_over_its_examples() -> None:
    answer = "```python\nprint(int(input()) * 2)\n```\nInput:\n```\n3\n```\nOutput:\n```\n6\n```"
    assert extract_code(answer, None) == "print(int(input()) * 2)\n"


@pytest.mark.parametrize("read", ["input()", "sys.stdin.read()", "open(0).read()", "open( 0 , 'rb')"])
def test_a_program_that_reads_over_one_that_does_not(read: str) -> None:
    answer = f"```python\nprint({read})\n```\nTo try it:\n```python\nprint(solve('3'))\n```"
    assert extract_code(answer, None, reads_stdin=True) == f"print({read})\n"
    assert extract_code(answer, None) == "print(solve('3'))\n"


def test_only_other_languages_are_better_than_prose() -> None:
    assert extract_code("So:\n```pycon\n>>> a = 1\n>>> a\n1\n```", None) == "a = 1\na\n"


def test_the_entry_point_is_taken_literally() -> None:
    assert extract_code("```python\ndef fx(): 0\n```\n```python\n1\n```", ".") == "1\n"


def test_an_entry_point_that_is_an_expression() -> None:
    answer = f"```python\n{METHOD}```\n```python\ns = Solution()\n```"
    assert extract_code(answer, "Solution().f") == METHOD
    assert [first_name(name) for name in ("Solution().f", "f", "(lambda: 0)")] == ["Solution", "f", "(lambda: 0)"]


PIECES = [
    "```",
    "```python\n",
    "~~~",
    "````",
    "</think>",
    "<think>",
    ">>> ",
    "def f(x):\n",
    "    return x\n",
    "f = 1\n",
    "\n",
]


@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=25).map("".join),
    st.one_of(st.none(), st.just("f"), st.just("Solution().f"), st.text(max_size=5)),
    st.booleans(),
)
def test_any_text_gives_a_program(answer: str, entry_point: str | None, reads_stdin: bool) -> None:
    assert isinstance(extract_code(answer, entry_point, reads_stdin=reads_stdin), str)


@given(
    st.sampled_from([F, METHOD, DOCSTRING, G]),
    st.text(alphabet="ab .:\n", max_size=30),
    st.sampled_from(["```", "~~~", "````"]),
)
def test_one_clean_block_comes_out_as_it_is(code: str, prose: str, fence: str) -> None:
    assert extract_code(f"{prose}\n{fence}python\n{code}{fence}\n{prose}", "f") == code
    assert parse(code) is not None


def test_long_answers_take_no_time() -> None:
    extract_code("```\n" * 20_000, "f")
    extract_code("x = 1\n" * 3_000 + "It is so.\n" * 3_000, "f")
