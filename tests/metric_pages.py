"""What a page in docs/algorithms says is logged, to compare with what a run logs.

The page has a section `## What is logged` with a table, "| `name`, `other` | what |", with or
without a column more; `<part>` in a name stands for any word. Another section follows it.
"""

import json
import re
from pathlib import Path

ALGORITHMS = Path(__file__).resolve().parent.parent / "docs" / "algorithms"
BESIDE = {"step", "iteration", "train_s"}  # said in the text above the table


def check_metrics(page: str, *run_dirs: Path) -> None:
    """Every name that the runs logged has one row in the page's table, and no row is of none."""
    section = re.search(
        r"^## What is logged\n(.*?)^## ", (ALGORITHMS / f"{page}.md").read_text(), re.M | re.S
    )
    assert section is not None, f"{page}.md has no section 'What is logged' before another one"
    heads = re.findall(r"^\| (`[^|]+`) \| \S.* \|$", section[1], re.M)
    names = [name for head in heads for name in re.findall(r"`([^`]+)`", head)]
    assert len(names) == len(set(names)) > 5, f"{page}.md: these rows were read: {names}"
    patterns = {name: re.sub(r"<\w+>", r"\\w+", name) for name in names}
    logged = {
        key
        for folder in run_dirs
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        for key in json.loads(line)
    } - BESIDE
    told = {key: [n for n, p in patterns.items() if re.fullmatch(p, key)] for key in logged}
    absent = sorted(key for key, rows in told.items() if not rows)
    assert not absent, f"{page}.md has no row for what was logged: {', '.join(absent)}"
    twice = {key: rows for key, rows in told.items() if len(rows) > 1}
    assert not twice, f"{page}.md has several rows for one name: {twice}"
    idle = sorted(set(names) - {rows[0] for rows in told.values()})
    assert not idle, f"{page}.md has rows for what was not logged: {', '.join(idle)}"
