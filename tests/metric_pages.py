"""What a page in docs/algorithms says is logged, to compare with what a run logs."""

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
    assert section is not None
    rows = re.findall(r"^\| `([^`]+)` \| (\S.*?) \| (\S.*?) \|$", section[1], re.M)
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)) > 5
    patterns = {name: re.sub(r"<\w+>", r"\\w+", name) for name in names}
    logged = {
        key
        for folder in run_dirs
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        for key in json.loads(line)
    } - BESIDE
    told = {key: [n for n, p in patterns.items() if re.fullmatch(p, key)] for key in logged}
    assert not [key for key, rows in told.items() if len(rows) != 1]
    assert {rows[0] for rows in told.values()} == set(names)
