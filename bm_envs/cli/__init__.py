"""What every room and every command shares. All names are imported from here.

`command.py` parses flags and turns errors into one sentence; `help.py` shortens their help and says
what commands are called. `files.py` and `json_files.py` write files whole or not at all.
`record.py` says what a result was made with. `terminal.py` shows how far a command is and lays
tables out, and `media.py` writes videos and figures.
"""

from bm_envs.cli.command import (
    ENDING_SIGNALS,
    OUTPUT_FILES,
    OUTPUT_FOLDERS,
    WARNING_LINES,
    Interrupted,
    check_outputs,
    check_seed,
    os_sentence,
    parse,
    raise_interrupted,
    run,
    signals_end_at_once,
    warnings_as_lines,
)
from bm_envs.cli.files import (
    SEAL,
    atomic_path,
    default_output,
    file_sha256,
    make_folder,
    os_reason,
    remove_leftovers,
    seal_zip,
    shortened,
    zip_damage,
)
from bm_envs.cli.help import (
    call_scripts,
    print_next,
    spelled,
)
from bm_envs.cli.json_files import (
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    parse_json,
    read_json,
    write_json,
)
from bm_envs.cli.media import (
    matplotlib_figure,
    video_package,
    write_video,
)
from bm_envs.cli.record import (
    available_cores,
    command_line,
    commit,
    json_result,
    machine,
    package_versions,
    versions,
)
from bm_envs.cli.terminal import (
    aligned,
    bar_interval,
    figure,
    markdown_table,
    progress_bar,
)

__all__ = [
    "ENDING_SIGNALS",
    "Interrupted",
    "MAX_JSON_BYTES",
    "MAX_JSON_DEPTH",
    "OUTPUT_FILES",
    "OUTPUT_FOLDERS",
    "SEAL",
    "WARNING_LINES",
    "aligned",
    "atomic_path",
    "available_cores",
    "bar_interval",
    "call_scripts",
    "check_outputs",
    "check_seed",
    "command_line",
    "commit",
    "default_output",
    "figure",
    "file_sha256",
    "json_result",
    "machine",
    "make_folder",
    "markdown_table",
    "matplotlib_figure",
    "os_reason",
    "os_sentence",
    "package_versions",
    "parse",
    "parse_json",
    "print_next",
    "progress_bar",
    "raise_interrupted",
    "read_json",
    "remove_leftovers",
    "run",
    "seal_zip",
    "shortened",
    "signals_end_at_once",
    "spelled",
    "versions",
    "video_package",
    "warnings_as_lines",
    "write_json",
    "write_video",
    "zip_damage",
]
