"""Suites: the lists, against the paper's table and the issue's cuts, and where a clip is listed."""

import re

import pytest

from bm_envs.errors import ConfigError
from bm_envs.motion import library, repair, suites

# Typed from arXiv 2508.08241, Table I, in its order, each name once. `run1_subject4` is as printed.
PRINTED = """
walk1_subject1 walk1_subject2 walk1_subject5 walk2_subject1 walk2_subject3 walk2_subject4
dance1_subject1 dance1_subject2 dance1_subject3 dance2_subject1 dance2_subject2 dance2_subject3
dance2_subject4 fallAndGetUp1_subject4 fallAndGetUp2_subject2 fallAndGetUp2_subject3 run1_subject2
run1_subject4 run1_subject5 run2_subject1 jumps1_subject1 jumps1_subject2 jumps1_subject5
fightAndSports1_subject1 fightAndSports1_subject4 fight1_subject2 fight1_subject3 fight1_subject5
""".split()
CUTS = (
    "walk1[5:15] walk3[60:70] dance1[0:10] run1[20:30] jumps1[24:34] fight1[60:70] sprint1[20:30] "
    "fallAndGetUp1[10:20]"
).split()


def test_the_papers_table():
    names = suites.motions("lafan1-table1")
    assert len(PRINTED) == len(set(PRINTED)) == len(names) == 28
    assert set(PRINTED) - set(names) == {"run1_subject4"}
    assert set(names) - set(PRINTED) == {"run2_subject4"}
    known = library.LAFAN1.names()
    assert "run1_subject4" not in known and set(names) <= set(known)


def test_the_whole_set_and_the_packages_own():
    assert len(suites.motions("lafan1-40")) == 40
    walks = suites.motions("lafan1-walks")
    assert len(walks) == 11 and set(walks) < set(suites.motions("lafan1-40"))
    assert {name.partition("_")[0] for name in walks} == {"walk1", "walk2", "walk3", "walk4"}
    builtin = suites.motions("builtin")
    assert {"walk", "stand", "walk_back"} <= set(builtin)
    assert all(library.load_motion(name).name == name for name in builtin)


def test_the_cuts_are_named_as_their_clips_are():
    short = {
        name.partition("_subject")[0]: name
        for name in sorted(library.LAFAN1.names(), key=lambda name: -int(name[-1]))
    }
    full = [f"{short[cut.partition('[')[0]]}[{cut.partition('[')[2]}" for cut in CUTS]
    assert list(suites.motions("lafan1-cuts")) == full


@pytest.mark.slow
def test_cuts_load_under_the_names_they_are_listed_by(data_dir):
    for given, listed in zip(CUTS, suites.CUTS, strict=True):
        clip = library.load_motion(given)
        assert clip.name == library.load_motion(listed).name == listed
        assert clip.duration_s == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("motion", "expected"),
    [
        ("walk[2:9]", "builtin"),
        ("walk_on_3", "builtin"),
        ("dance1_subject1[0:10]", "lafan1-cuts"),
        ("dance1_subject2[0:10]", "lafan1"),
        ("dance1_subject2", "lafan1-40"),
        ("g1_moves/M_Move19", "g1_moves"),
        ("my_dance", "other"),
        ("dance1_subject2~repaired", "lafan1-repaired"),
        ("dance1_subject1~repaired[0:10]", "lafan1-repaired"),
        ("dance1_subject1[0:10]~repaired", "lafan1-repaired"),
        ("walk~repaired", "other"),
        ("g1_moves/M_Move19~repaired[1:2]", "other"),
    ],
)
def test_where_a_clip_is_listed(motion, expected):
    assert suites.suite_of(motion) == expected


def test_no_suite_holds_a_repaired_motion():
    assert "lafan1-repaired" not in suites.NAMES and "lafan1-repaired" in suites.OTHERS
    for name in suites.NAMES:
        assert not any(repair.is_repaired(motion) for motion in suites.motions(name))


def test_an_unknown_suite():
    message = "Unknown suite 'lafan1-cut'; did you mean 'lafan1-cuts' or 'lafan1-40' or"
    with pytest.raises(ConfigError, match=re.escape(message)):
        suites.motions("lafan1-cut")
