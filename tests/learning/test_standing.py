"""`bm_envs.learning.standing`: how far a run is, by what its folder holds."""

import json

import pytest

from bm_envs.learning.standing import Line, Standing, Watched, page, rank, sentence, write_page


def metrics(folder, *rows):
    lines = [json.dumps({"step": step, "train_s": step / 500, **figures}) for step, figures in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def policy(folder, steps, **figures):
    (folder / "policy.json").write_text(json.dumps({"format": "bm-envs policy 1", "training": {
        "env_steps": steps, "wall_s": 1.0, "first_pass": {}, "clip_protocol": figures,
        "commit": None, "machine": {},
    }}))  # fmt: skip


def evaluated(survival, **others):
    return {
        "eval/survival": survival, "eval/success": float(survival == 1.0),
        **{f"eval/{key}": value for key, value in others.items()},
    }  # fmt: skip


def test_a_run_is_followed_from_nothing_to_its_end(tmp_path):
    run = tmp_path / "run"
    watched = Watched(run)
    assert watched.standing() == Standing()
    run.mkdir()
    metrics(run, (512, {}), (1024, evaluated(0.25)), (1536, {}))
    assert watched.standing() == Standing(1536, 1536 / 500 / 60, 0.25)
    # What is told of each protocol is its own last evaluation.
    metrics(run, (1024, evaluated(0.5, robust=0.25)), (1536, evaluated(1.0)), (2048, {}))
    at = watched.standing()
    assert (at.survived, at.completed, at.robust) == (1.0, True, 0.25)
    assert not at.ended and not at.done
    policy(run, 2048, success=1.0)
    assert watched.standing().ended and not watched.standing().done
    # It goes on: the policy is then of an earlier step.
    metrics(run, (2048, evaluated(1.0, robust=0.25)), (2560, {}))
    assert not watched.standing().ended
    metrics(run, (2560, evaluated(1.0, robust=0.95)))
    policy(run, 2560, success=1.0)
    assert watched.standing().done


def test_a_run_that_no_longer_completes_its_clip_is_not_done():
    assert Standing(robust=0.97, completed=True, ended=True).done
    assert not Standing(robust=0.97, completed=False, ended=True).done
    assert not Standing(robust=0.94, completed=True, ended=True).done


def test_a_line_that_a_kill_cut_off_is_passed_over(tmp_path):
    metrics(tmp_path, (512, evaluated(0.5)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10')
    assert Watched(tmp_path).standing().steps == 512


def test_the_better_policy_completes_more_then_is_more_robust_then_survives_more(tmp_path):
    ranks = []
    for figures in (
        {"success": 0.0, "survival": 0.3}, {"success": 0.0, "survival": 0.9},
        {"success": 0.0, "survival": 0.2, "robust": 0.1}, {"success": 1.0, "survival": 1.0},
        {"success": 1.0, "survival": 1.0, "robust": 0.5},
    ):  # fmt: skip
        policy(tmp_path, 1, **figures)
        ranks.append(rank(tmp_path / "policy.json"))
    assert ranks == sorted(ranks) and len(set(ranks)) == len(ranks)


def test_the_page_counts_and_says_why_a_run_failed(tmp_path):
    lines = [
        Line("a__1", 20.0, "ended", Standing(2_000_000, 60.0, 1.0, True, 0.96, True)),
        Line("b__1", 15.5, "ended", Standing(1_000_000, 30.0, 0.4, False, None, True)),
        Line("c__1", 10.0, "waiting", Standing()),
        Line("d__1", 5.0, "failed", Standing(), "it died"),
    ]
    write_page(tmp_path / "page.md", "wm_track on a | b", lines)
    text = (tmp_path / "page.md").read_text()
    assert text == page("wm_track on a | b", lines)
    assert "2 of 4 runs have ended; 1 complete their motion, 1 of them 95% of the" in text
    assert "1.5 hours of training" in text
    assert "| a__1 | 20.0 | ended | 100% | yes | 96% | 2.00 | 60.0 |" in text
    assert "| d__1 | 5.0 | failed: it died |" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


@pytest.mark.parametrize(
    "line, expected",
    [
        (Line("a", 1.0, "waiting", Standing()), "waiting"),
        (
            Line("a", 1.0, "training", Standing(1_500_000, 12.34, 0.256)),
            "training, 1.50 M steps, 12.3 min, survived 26%",
        ),
        (
            Line("a", 1.0, "ended", Standing(1_500_000, 12.34, 1.0, True, 0.8, True)),
            "ended, 1.50 M steps, 12.3 min, completed, robust 80%",
        ),
        (Line("a", 1.0, "failed", Standing(), "it died"), "failed: it died"),
    ],
)
def test_a_line_of_state(line, expected):
    assert sentence(line) == expected
