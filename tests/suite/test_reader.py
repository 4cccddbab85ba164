"""Strict, bounded YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_cmic.suite import SuiteError
from robustbench_cmic.suite.reader import MAX_BYTES, read_document


def read(tmp_path: Path, text: str | bytes) -> object:
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(path).data


def error(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(SuiteError) as caught:
        read(tmp_path, text)
    return str(caught.value)


def test_scalars_follow_yaml_1_2(tmp_path: Path) -> None:
    text = "[5e-4, 1e3, .5, 3., -2, 010, no, on, yes, true, null, ~, 2020-01-01, 8/255, 1:30, 0x1F, '1', .inf]"
    expected = [5e-4, 1e3, 0.5, 3.0, -2, "010", "no", "on", "yes", True, None, None]
    data = read(tmp_path, text)
    assert isinstance(data, list)
    assert data[:12] == expected
    assert data[12:17] == ["2020-01-01", "8/255", "1:30", "0x1F", "1"]
    assert data[17] == float("inf")
    assert [type(value) for value in data[:6]] == [float, float, float, float, int, str]


def test_anchors_are_allowed(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x {k: 1}\nb: *x\n") == {"a": {"k": 1}, "b": {"k": 1}}


def test_lines_and_duplicate_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\nb:\n  - c: 2\n    d: 3\n    c: 4\na: 5\n")
    document = read_document(path)
    assert document.lines[("b", 0, "d")] == 4
    assert document.data == {"a": 1, "b": [{"c": 2, "d": 3}]}
    assert [(p.line, p.location) for p in document.problems] == [(5, ("b", 0, "c")), (6, ("a",))]
    assert "first is on line 3" in document.problems[0].message


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!mine 3", "!!set {a}"]
)
def test_foreign_tags_are_refused_and_never_run(tmp_path: Path, tag: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"a: {tag}\n")
    document = read_document(path)
    assert document.data == {"a": None}
    assert "not allowed" in document.problems[0].message


def test_a_value_that_does_not_fit_its_tag(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: !!int hello\n? [1]\n: 2\n")
    messages = [problem.message for problem in read_document(path).problems]
    assert messages[0].startswith("'hello' does not fit")
    assert messages[1].startswith("a key should be a word")


def test_a_bomb_of_aliases_is_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "aliases expand to more values" in error(tmp_path, "\n".join(lines))
    assert "aliases expand to more values" in error(tmp_path, "a: &a [*a]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: [1, 2", "x.yaml:1: YAML syntax error: while parsing a flow sequence"),
        ("a: 1\n\tb: 2", "x.yaml:2: YAML syntax error"),
        ("a: 1\n---\nb: 2\n", "YAML syntax error"),
        ("a: *nobody", "undefined alias"),
        ("[" * 5000, "nested more than 20 levels"),
        ("a: " + "[1], " * 5 + "\x00", "YAML syntax error"),
        (b"a: 1\nb: \xff\xfe", "x.yaml:2: the file is not UTF-8 text"),
        ("- x\n" * 50_000, "more than 20000 values"),
        ("#" * (MAX_BYTES + 1), "larger than 256 KiB"),
    ],
)
def test_what_is_no_suite_gets_one_sentence(tmp_path: Path, text: str | bytes, message: str) -> None:
    found = error(tmp_path, text)
    assert message in found
    assert "\n" not in found


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot read the suite: No such file"):
        read_document(tmp_path / "missing.yaml")
    with pytest.raises(SuiteError, match="cannot read the suite: Is a directory"):
        read_document(tmp_path)
