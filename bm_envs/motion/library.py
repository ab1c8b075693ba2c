"""Motions by name or path.

| given | found |
|---|---|
| `walk`, `stand`, ... | the package's own clips, `bm_envs/assets/motions` |
| `walk_mix_0`, `walk_mix_1`, ... | a minute of walking under random commands, made anew (3 s) |
| `walk_on_0`, `walk_on_1`, ... | the same, never standing |
| `dance1_subject2`, `dance1` | LAFAN1 retargeted to the G1: `BM_DATA_DIR/lafan1_g1`, then the Hub |
| `g1_moves/M_Move19` | G1 Moves: `BM_DATA_DIR/g1_moves` |
| any other `NAME` | `BM_DATA_DIR/NAME.npz`, `.csv` or `.pkl` |
| `some/file.npz`, `.csv`, `.pkl`, `.pkl#NAME` | the file (`formats/`); it wins over a name |
| any of these with `~repaired` behind it | the same, where no robot can follow it repaired |

A LAFAN1 name without its subject is the lowest-numbered subject there is. `NAME[10:20]` keeps
seconds 10 to 20 of any of them, and either end may be left out. Files of the two public sets are
used only when their SHA-256 is the one written here. One file because the table above is one order
of looking up, and the sets' digests are lines of it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bm_envs.errors import MotionError
from bm_envs.motion import checks, doubts, formats, hub, repair
from bm_envs.motion.clip import Clip, load_npz, read_head
from bm_envs.motion.converted import converted, derived, planned, source_sha256
from bm_envs.motion.csv import count_frames, read_csv
from bm_envs.motion.formats import CSV_FPS
from bm_envs.robots import g1

BUILTIN_DIR = Path(__file__).resolve().parent.parent / "assets" / "motions"
DATA_DIR_VARIABLE = "BM_DATA_DIR"


@dataclass(frozen=True)
class PublicSet:
    """A published set of G1 motions as CSV, which this package does not contain."""

    folder: str
    """Folder of the set in BM_DATA_DIR."""
    prefix: str
    """Text before a file's stem in the name of its motion."""
    fps: float
    source: str
    licence: str
    sha256: Mapping[str, str]
    """SHA-256 of each CSV, by the file's stem."""
    hub_folder: str | None = None
    """Folder of the set in the Hub dataset `hub.LAFAN1_REPO`; None: the Hub does not have it."""
    frames: Mapping[str, int] = field(default_factory=dict)
    """Frames of each CSV, by its stem without the subject, as far as known without the file."""

    def names(self) -> list[str]:
        return [self.prefix + stem for stem in self.sha256]


LAFAN1_SHA256 = {
    "dance1_subject1": "3d3725665e1e18960218b01a9b7e44e5ef9d2d38b843779316f2a21612c58c84",
    "dance1_subject2": "1793edcd8345fa4736676c06008186d1a3ecaaf99df0c380218eaa4e0de100ec",
    "dance1_subject3": "b52a0c3559322f1c869af6097c0e220e1864db2724e5501dbf045062e72e6191",
    "dance2_subject1": "bf592a42c2b46f03967f6cb68b9260b38e9d2a180d3bb8eb682a1ede915495c5",
    "dance2_subject2": "0bab82e2f3a93a876cb7ebb99b5bc3d0c5bca797546a1787bc8d3fd172f122ac",
    "dance2_subject3": "e44de790531e7cbce990c0ecd6ea00f40fcbc3b1adac0bbc27d055a109d1ff3e",
    "dance2_subject4": "a77efb99eac3392b92c6bdd4d7f535c53fe4bf58f949470bc0dc1232a523530e",
    "dance2_subject5": "40f3aca427a311d6749002bffbf92c3ebb3460c1a10ff9c03735461bdd77c95a",
    "fallAndGetUp1_subject1": "34f1b602370bd19a0982b1f2543bc1630fd29e6cce2690e799fb627bb6d322d1",
    "fallAndGetUp1_subject4": "ef7fdd80e3f3420177eca37cff4be44368a1dcd3514afb58939cdf4576c73a85",
    "fallAndGetUp1_subject5": "5e1d46a2e2ce2a35d30968ce6d082651eeec2793272c31b71dac5b25fc1d4c20",
    "fallAndGetUp2_subject2": "28071201708ffe46400c6af71c3890323dc52eb791a7e468dfe610a616376c63",
    "fallAndGetUp2_subject3": "f405a92fbee5a5e5f2455a88f67ab78c829a28012d0f6e8f3335a5196ea89cb5",
    "fallAndGetUp3_subject1": "f89b5635acc830850ee4573e427b83485bae6a05df1d25032aa3c62c1e78cdf1",
    "fight1_subject2": "6abeacbb5a59d19433fed96c46832da38da3f436876c89baf8bb6cf2fe73221f",
    "fight1_subject3": "089a6028b64746ad8b95f32b0a235f5d41adf84a3681258ddc2fdca41cc4ab77",
    "fight1_subject5": "28d64e5b0de544005ab1b36a1dab8b6a1326e402658738fb99fea2854707945a",
    "fightAndSports1_subject1": "8ce618fff7eaa8f019a5dcb6ad55374482a7cec5130daac7c98a55c2ce0960b3",
    "fightAndSports1_subject4": "57714ba06ee2c79158d3b3d98836c003efd09da6cd326a5b78eeaf6e13f797c6",
    "jumps1_subject1": "9a2bea65f7f4f0d1b8630d8ce2d2930604f6b05e7f635dc1b6690f5cb2be2590",
    "jumps1_subject2": "285747657091c6b8f9c32e9b748608fd76ac7426bd0137f2d7b057a71d735127",
    "jumps1_subject5": "6fcff9e8d0be98b0f796ee036eb11755013cc3b3474d1b16f71ea7ed24925f65",
    "run1_subject2": "05e17399f5055b813a7c5f158cfd3f2789d38624b7169048287ce54981ae7e31",
    "run1_subject5": "c9f18a6f447845db1f72f9addf6cf82758b0e39a914df30ac253488eec44dea7",
    "run2_subject1": "c5e0bc73cc0fcc893f7867cee7e61c2fe636f09253ce777b89959d0847a84bf1",
    "run2_subject4": "daf412713d9f8f44e2c9041dff7277b86b3f450709340bc5a7f45d4f96177b06",
    "sprint1_subject2": "9cb69b37f8b46ca40deadad521d7efe19640bd7d26eed39aa1a520f99ae8aabd",
    "sprint1_subject4": "2924e1e1a028d5f6417a1c46d208c74acc87b6ed29b0188e6c94161b4651de9d",
    "walk1_subject1": "79e1c935af738bf2d2392bcb9fbe6381a6394f4f930ec5d933296aaca3f2dcd3",
    "walk1_subject2": "6947af3f4cfccefb8058deb15e3ff065ba84c8c7622ee0f2a56d7addea64cc5a",
    "walk1_subject5": "bf793f72581fa3c5c4e0e37fbeaa17dd2dc74900047244e3cc45cfac34259fbd",
    "walk2_subject1": "b43902953e9c58d7ccec206c57275d4a290ba7adf355b0783294399bfc39f27a",
    "walk2_subject3": "4ffcb006003c54faa0015798238a01eb6ecd1101633ff210b1a5c4bf9c08a28f",
    "walk2_subject4": "4530001af1faf9d6619e5849058b8dfc534793b6d2539e9d3dcb0b476b46c8f6",
    "walk3_subject1": "d23a6bcb4e750a08a70848b593ac363c746ec8a3b37f75fd8f0c562bf4ec5f76",
    "walk3_subject2": "b0c88f3843b74c498ba34a1407c678f9664b554a67507ec4434b48746bba0c08",
    "walk3_subject3": "a30a9e58ab6186ac4bed3c4feadbf646fc8b51fb2aef4195f4e051a26c5d3b1b",
    "walk3_subject4": "d0c2888e455a631141a2aac7324e02528d85bea5c1f276aef9a45d18503a95e8",
    "walk3_subject5": "0568cd18d14ac2c4d6ed119b834309db34b0eafc47f36c22d126ebcc5a7a0405",
    "walk4_subject1": "690f76df575927c9545460441039da021c1c2e6f741a45214e50a8ce6b09762e",
}
G1_MOVES_SHA256 = {
    "B_CrazyChopsKarate": "2af1f05b1b655a91b514d5dadf43a2111cc5b442be4fecee154dfdce0293e313",
    "J_Dance17_Shuffle": "cd2f86853b1f397820af0b6ea57a0e62203ec504ac5e32bac97cf73a54df9745",
    "J_Dance20_DWG": "0bfa848c6c4993878d661dc158142996c4ca8861e71bb53dc945461a06c968b4",
    "J_ShortDance13_SingleLadies": "b02d4b6b65acb874c77e1f936ec0e9fbba2a5140c00dccdb7cd46e7d6a815368",  # noqa: E501
    "J_ShortDance16_JazzWalk": "f8f61ea840a38da7a7c9ce468dcdf4643d47ad1e055e7292a278735e60ae1309",
    "M_Move19": "be9487e0570b6b72d64ab15c389f65d5ffb5c6fd597fbd603489632cf6d8932a",
    "M_ShortMove13": "e248743962dae507a4d0f659bac67a793c08f696c301a232eefec86bb8363caa",
}
# Lines of the published files; all subjects of a motion were recorded together.
LAFAN1_FRAMES = {
    "dance1": 3945, "dance2": 6771, "fallAndGetUp1": 5047, "fallAndGetUp2": 4918,
    "fallAndGetUp3": 3066, "fight1": 7347, "fightAndSports1": 7355, "jumps1": 7334, "run1": 7135,
    "run2": 7345, "sprint1": 8194, "walk1": 7840, "walk2": 7146, "walk3": 7399, "walk4": 4918,
}  # fmt: skip
G1_MOVES_FRAMES = {
    "B_CrazyChopsKarate": 1452, "J_Dance17_Shuffle": 1922, "J_Dance20_DWG": 938,
    "J_ShortDance13_SingleLadies": 842, "J_ShortDance16_JazzWalk": 637, "M_Move19": 1012,
    "M_ShortMove13": 539,
}  # fmt: skip
LAFAN1 = PublicSet(
    folder="lafan1_g1",
    prefix="",
    fps=30.0,
    source="LAFAN1 (Ubisoft La Forge), retargeted to the G1",
    licence="CC BY-NC-ND 4.0",
    sha256=LAFAN1_SHA256,
    hub_folder=hub.LAFAN1_FOLDER,
    frames=LAFAN1_FRAMES,
)
G1_MOVES = PublicSet(
    folder="g1_moves",
    prefix="g1_moves/",
    fps=60.0,
    source="G1 Moves (Mitch Chaiet / Experiential Technologies), commit 130ed88",
    licence="CC BY 4.0",
    sha256=G1_MOVES_SHA256,
    frames=G1_MOVES_FRAMES,
)
PUBLIC_SETS = (LAFAN1, G1_MOVES)


@dataclass(frozen=True)
class MotionInfo:
    """One motion that `load_motion` knows by name."""

    name: str
    where: str
    """`package`, `BM_DATA_DIR`, `Hub`, or `not here` (until BM_DATA_DIR has it)."""
    fps: float
    """Frames per second of the stored file."""
    frames: int | None
    """Frames of the stored file; None if only the file shows them and it is not on this machine."""
    licence: str
    source: str


def load_motion(
    motion: str | Path | Clip,
    *,
    input_fps: float | None = None,
    order: g1.Order | None = None,
    sets: Sequence[PublicSet] = PUBLIC_SETS,
) -> Clip:
    """Load one motion.

    Args:
        motion: a name or a path as in the table above, with a cut `[start:end]` in seconds if
            wanted. A clip is returned as it is.
        input_fps: rate of a file that has none and is not of a public set; None: 30 for a CSV whose
            name and motion do not speak for another, and a refusal for other files.
        order: order that an NPZ without names must have, as in `load_npz`.
        sets: the public sets whose names are known.

    Raises:
        MotionError: unknown name, unreadable file, wrong digest, cut outside the clip.
    """
    if isinstance(motion, Clip):
        return motion
    text = os.fspath(motion)
    if _is_file(text):  # also a file whose name looks like a cut
        return _read_path(text, input_fps, order, sets)
    cut = re.fullmatch(r"(.+)\[(.*)\]", text, re.DOTALL)
    if not cut:
        return _load_whole(text, input_fps, order, sets)
    ends = cut[2].split(":")
    if len(ends) != 2 or not all(re.fullmatch(r"\d*\.?\d*", end) and end != "." for end in ends):
        raise MotionError(f"Motion {text!r}: expected a cut in seconds, as in 'NAME[10:20]'.")
    start_s, end_s = (float(end) if end else None for end in ends)
    part = _load_whole(cut[1], input_fps, order, sets).cut(start_s or 0.0, end_s)
    return checks.check_start(part, part.name) if start_s else part


def load_motions(motion: str | Path | Clip | Sequence[str | Path | Clip]) -> list[Clip]:
    """Load one motion or several, in the order given; of a .pkl file, all clips in it."""
    several = [motion] if isinstance(motion, str | Path | Clip) else list(motion)
    if not several:
        raise MotionError("The list of motions is empty, expected one name or path at least.")
    clips = []
    for item in several:
        if not isinstance(item, Clip) and Path(item).suffix == ".pkl" and os.path.isfile(item):
            clips += converted(
                item, ("all clips",), lambda item=item: formats.read_pickled_clips(item)
            )
        else:
            clips.append(load_motion(item))
    return clips


def is_computed(name: str) -> bool:
    """Whether a motion of this name is computed when it is loaded, with a cut or not.

    Its last digits differ between processors, and its SHA-256 with them.
    """
    from bm_envs.motion import procedural  # which needs the engine

    return repair.is_repaired(name) or procedural.is_drawn(name)


def known_rate(path: str | Path) -> float | None:
    """Frames per second of a file whose content is that of a public set, or None."""
    if not (f"{path}".endswith(".csv") and _is_file(f"{path}")):
        return None
    digest = source_sha256(path)
    return next((p.fps for p in PUBLIC_SETS if digest in p.sha256.values()), None)


def list_motions(sets: Sequence[PublicSet] = PUBLIC_SETS) -> list[MotionInfo]:
    """The motions known by name: of the package, of the public sets, and others in BM_DATA_DIR.

    Each with where it would come from; nothing is fetched, and of files no more is read than tells
    whether they hold a motion of the G1. What is made when asked for is not listed.
    """
    infos = []
    for path in _builtin_files():
        clip = load_npz(path)
        infos.append(
            MotionInfo(path.stem, "package", clip.fps, clip.num_frames, clip.licence, clip.source)
        )
    for public in sets:
        for name, stem in zip(public.names(), public.sha256, strict=True):
            path = _in_data_dir(f"{public.folder}/{stem}.csv")
            where = DATA_DIR_VARIABLE if path else "Hub" if public.hub_folder else "not here"
            frames = public.frames.get(re.sub(r"_subject\d+$", "", stem))
            if path:
                frames = path.read_bytes().count(b"\n")
            infos.append(MotionInfo(name, where, public.fps, frames, public.licence, public.source))
    return infos + _own_files({info.name for info in infos}, sets)


def _own_files(known: set[str], sets: Sequence[PublicSet]) -> list[MotionInfo]:
    """The user's own motions in BM_DATA_DIR."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if not folder:
        return []
    of_sets = {f"{public.folder}/{stem}" for public in sets for stem in public.sha256}
    infos = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Of two files of a name the NPZ comes first; loading chooses it, too.
        for path in sorted(
            (Path(place, file) for file in files), key=lambda p: (p.stem, p.suffix != ".npz")
        ):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if path.suffix not in (".npz", ".csv") or name in known or name in of_sets:
                continue
            if path.suffix == ".npz":
                head = read_head(path)
            else:
                frames = count_frames(path)
                fps = next((p.fps for p in sets if p.prefix and name.startswith(p.prefix)), CSV_FPS)
                head = None if frames is None else (fps, frames, "", "")
            if head is not None:
                fps, frames, source, licence = head
                infos.append(
                    MotionInfo(name, DATA_DIR_VARIABLE, fps, frames, licence or "yours", source)
                )
                known.add(name)
    return infos


def _is_file(text: str) -> bool:
    """Whether `text` is a file with a suffix. A folder called `walk` must hide no motion."""
    return Path(text).suffix != "" and os.path.isfile(text)


def _builtin_files() -> list[Path]:
    return sorted(BUILTIN_DIR.glob("*.npz"))


def _in_data_dir(relative: str) -> Path | None:
    """The file of that name in BM_DATA_DIR, if there is one."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if not folder:
        return None
    if not os.path.isdir(folder):
        raise MotionError(f"{DATA_DIR_VARIABLE} is {folder!r}, expected a folder that exists.")
    path = Path(folder, relative)
    return path if os.path.isfile(path) else None


def _read_path(
    path: str, input_fps: float | None, order: g1.Order | None, sets: Sequence[PublicSet]
) -> Clip:
    """A file by its path. A file of a public set, known by its content, gets rate and licence."""
    if path.endswith(".csv") and _is_file(path):
        digest = source_sha256(path)
        for public in sets:
            for stem, known in public.sha256.items():
                if known == digest:
                    return _read_public(path, public, stem, input_fps)
    return _read_file(path, input_fps, order)


def _read_file(path: str | Path, input_fps: float | None, order: g1.Order | None) -> Clip:
    """`formats.read_file`, or what it returned before."""
    file, _, name = f"{path}".partition("#") if formats.is_in_pickle(f"{path}") else (path, "", "")

    def read() -> list[Clip]:
        return [formats.read_file(path, input_fps=input_fps, order=order)]

    (clip,) = converted(file, ("file", name, input_fps, order), read)
    return clip


def _load_whole(
    name: str, input_fps: float | None, order: g1.Order | None, sets: Sequence[PublicSet]
) -> Clip:
    """The motion `name` without a cut."""
    if name.endswith(repair.SUFFIX):
        original = name.removesuffix(repair.SUFFIX)
        if (at_the_end := repair.repaired_name(original)) != name:
            raise MotionError(f"Motion {name!r}: expected the cut at the end, '{at_the_end}'.")
        with doubts.silent():
            clip = _load_whole(original, input_fps, order, sets)
        return checks.check(derived(clip, "repair", repair.repair), name)
    if _is_file(name) or name.endswith(formats.SUFFIXES) or formats.is_in_pickle(name):
        return _read_path(name, input_fps, order, sets)
    builtin = {path.stem: path for path in _builtin_files()}
    if name in builtin:
        return load_npz(builtin[name])
    if name.startswith(("walk_mix_", "walk_on_")):
        from bm_envs.motion import procedural  # which needs the engine

        return planned(name, lambda: procedural.make_clip(name))
    short = _short_names(sets)
    for public in sets:
        stem = short.get(name, name).removeprefix(public.prefix)
        if public.prefix + stem == short.get(name, name) and stem in public.sha256:
            return _load_public(public, stem)
    for suffix in formats.SUFFIXES:
        if path := _in_data_dir(name + suffix):
            fps = next((p.fps for p in sets if p.prefix and name.startswith(p.prefix)), None)
            return _read_file(path, input_fps or fps, order)
    known = [*builtin, *(known for public in sets for known in public.names())]
    close = difflib.get_close_matches(name, [*known, *short], n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    raise MotionError(
        f"Unknown motion {name!r};{hint} {len(known)} known: run tools/replay.py --list."
    )


def _short_names(sets: Sequence[PublicSet]) -> dict[str, str]:
    """`dance1` to `dance1_subject1`: the lowest-numbered subject of each."""
    lowest: dict[str, tuple[int, str]] = {}
    for public in sets:
        for name in public.names():
            if match := re.fullmatch(r"(.+)_subject(\d+)", name):
                entry = (int(match[2]), name)
                lowest[match[1]] = min(entry, lowest.get(match[1], entry))
    return {short: name for short, (_, name) in lowest.items()}


def _load_public(public: PublicSet, stem: str) -> Clip:
    relative, digest = f"{public.folder}/{stem}.csv", public.sha256[stem]
    advice = f"set {DATA_DIR_VARIABLE} to a folder that holds {relative}."
    path = _in_data_dir(relative)
    if path is not None:
        actual = source_sha256(path)
        if actual != digest:
            raise MotionError(
                f"{path}: has SHA-256 {actual[:12]}..., expected {digest[:12]}... of the published"
                " file."
            )
    elif public.hub_folder is None:
        raise MotionError(
            f"{public.prefix}{stem}: is not part of the package ({public.licence}); {advice}"
        )
    else:
        try:
            path = hub.fetch(f"{public.hub_folder}/{stem}.csv", digest)
        except MotionError as error:
            raise MotionError(f"{str(error).removesuffix('.')}; else {advice}") from error
    return _read_public(path, public, stem)


def _read_public(
    path: str | Path, public: PublicSet, stem: str, input_fps: float | None = None
) -> Clip:
    fps, name = input_fps or public.fps, public.prefix + stem

    def read() -> list[Clip]:
        return [read_csv(
            path, input_fps=fps, name=name, source=public.source, licence=public.licence
        )]  # fmt: skip

    (clip,) = converted(path, ("public", fps, name, public.source, public.licence), read)
    return clip
