"""Strict, bounded YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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


# --- merge keys -----------------------------------------------------------------------------------------------------


def test_merged_keys_are_those_of_pyyaml(tmp_path: Path) -> None:
    """Beside PyYAML's own safe loader, which knows YAML 1.1's merge key."""
    text = """\
a: &a {p: 1, q: {r: 2}}
b: &b {q: 3, s: 4}
one: {<<: *a, p: 5}
before: {p: 5, <<: *a}
both: {<<: [*a, *b], t: 6}
other: {<<: [*b, *a]}
nested: &n
  <<: *b
  u: 7
further:
  <<: [*n, {v: 8}]
  s: 9
none: {<<: []}
inline: {<<: {w: 1}}
"""
    assert read(tmp_path, text) == yaml.safe_load(text)


def test_merged_keys_stand_where_the_merge_does(tmp_path: Path) -> None:
    data = read(tmp_path, "a: &a {p: 1, q: 2}\nb: {x: 0, <<: *a, p: 3, y: 4}\n")
    assert isinstance(data, dict)
    assert list(data["b"]) == ["x", "q", "p", "y"]


def test_a_quoted_merge_key_is_a_key(tmp_path: Path) -> None:
    assert read(tmp_path, "a: {'<<': 1}\n") == {"a": {"<<": 1}}


def test_lines_of_merged_keys_are_those_where_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a\n  p: 1\n  q: [2,\n    3]\nb:\n  - <<: *a\n    p: 4\n")
    document = read_document(path)
    lines = {location: line for location, line in document.lines.items() if location and location[0] == "b"}
    assert lines == {
        ("b",): 5,
        ("b", 0): 6,
        ("b", 0, "q"): 3,
        ("b", 0, "q", 0): 3,
        ("b", 0, "q", 1): 4,
        ("b", 0, "p"): 7,
    }


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("b:\n  <<: 3\n", 2, "`<<` should merge a mapping, or a list of mappings"),
        ("a: &a [1]\nb:\n  <<: *a\n", 3, "`<<` should merge a mapping, or a list of mappings"),
        ("a: &a {p: 1}\nb:\n  <<: *a\n  <<: *a\n", 4, "`<<` stands here twice"),
        ("b:\n  <<: {p: 1,\n    p: 2}\n", 3, "duplicate key; the first is on line 2: keep one"),
        ("b:\n  <<: {[1]: 1}\n", 2, "a key should be a word"),
    ],
)
def test_what_cannot_be_merged_is_told(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    (problem,) = read_document(path).problems
    assert problem.line == line
    assert message in problem.message


def test_a_bomb_of_merges_is_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    assert "aliases expand to more values" in error(tmp_path, "\n".join(lines))
    chain = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: *a{i - 1}}}" for i in range(1, 40)]
    assert "aliases expand to more values" in error(tmp_path, "\n".join(chain))
    assert "aliases expand to more values" in error(tmp_path, "a: &a {<<: *a}")
    wide = "a: &a {" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}\n"
    assert "aliases expand to more values" in error(tmp_path, wide + "\n".join(f"b{i}: {{<<: *a}}" for i in range(20)))
