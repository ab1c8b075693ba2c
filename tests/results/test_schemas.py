"""JSON Schemas of result files: the committed bytes, and another project's validator of them."""

import json
from pathlib import Path

import jsonschema
import pytest
import result_files
from hypothesis import given
from hypothesis import strategies as st

from bm_envs.errors import BMWarning
from bm_envs.results import KINDS, check_result, rules, schemas, write_result

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "benchmarks" / "schemas"
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
Validator = jsonschema.Draft202012Validator


def test_the_committed_schemas_are_those_of_the_rules(tmp_path):
    schemas.main(schemas.Config(tmp_path))
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in KEPT.iterdir()}
    assert made.keys() == {f"{kind}.schema.json" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_one(kind):
    Validator.check_schema(schemas.schema_of(kind))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_keep_to_their_schema(path):
    value = json.loads(path.read_text())
    Validator(schemas.schema_of(value["kind"])).validate(value)


@pytest.mark.parametrize(
    ("place", "new"),
    [
        (["rows", 0, "success"], 1.2), (["rows", 0, "success"], "1"), (["rows", 1, "policy"], " "),
        (["rows", 0, "protocol"], "best"), (["rows", 0, "spread"], {"mpkpe_mm": "x"}),
        (["rows"], []), (["commit"], "main\n"), (["command"], "python a\nrm b"), (["seed"], -1),
        (["machine", "host"], "lab7"), (["settings", "policy_sha256"], {"walk": "0" * 63}),
        (["settings", "feet"], "wheels"), (["traces", 0, "mpkpe_mm"], [-1.0]), (["kind"], "gates"),
    ],
)  # fmt: skip
def test_what_the_reader_refuses_the_schema_refuses(place, new):
    value = result_files.track()
    validator = Validator(schemas.schema_of("track"))
    validator.validate(value)
    check_result(value, "out.json")
    *way, last = place
    at = value
    for key in way:
        at = at[key]
    at[last] = new
    assert not validator.is_valid(value)
    with pytest.raises(ValueError, match="out.json"):
        check_result(value, "out.json")


RULES = {
    "share": rules.number(0, 1), "above": rules.number(0, above=True, null=True),
    "whole": rules.whole(1), "text": rules.text(), "any text": rules.text(empty=True),
    "choice": rules.text("a", "b", null=True), "truth": rules.truth(null=True),
    "numbers": rules.numbers(null=True), "list": rules.listing(of=rules.number(0), least=1),
    "hex": rules.matching("[ab]{2}", "two letters"), "table": rules.table(of=rules.whole()),
    "either": rules.either("one", rules.whole(), rules.table()),
}  # fmt: skip
SINGLE = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2).filter(lambda x: x % 1),
    st.text("ab \n", max_size=3),
)  # fmt: skip
VALUES = st.recursive(
    SINGLE, lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text("xy", max_size=2), inner, max_size=3), max_leaves=4,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@given(value=VALUES)
def test_a_rule_takes_what_another_validator_takes(rule, value):
    """But for numbers such as 1.0, which JSON Schema takes for whole."""
    assert rule.holds(value) == Validator(rule.schema).is_valid(value)


def test_a_value_that_is_no_number_is_none():
    for bad in (float("nan"), float("inf"), -float("inf"), 2**64, True):
        assert not rules.number().holds(bad)
    assert not rules.interval().holds([0.6, 0.5]) and rules.interval().holds([0.5, 0.6])


def test_a_writer_tells_what_a_reader_will_refuse(tmp_path, recwarn):
    out = tmp_path / "out.json"
    value = result_files.track()
    write_result(out, value | {"commit": None, "settings": value["settings"] | {"quick": True}})
    assert not recwarn.list, "a quick run outside git is no fault"
    value["rows"][1]["success"] = 1.7
    with pytest.warns(BMWarning, match="row 2: success is 1.7, expected a number of 0 to 1"):
        write_result(out, value)
    assert json.loads(out.read_text()) == value
