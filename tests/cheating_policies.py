"""Policies that do not control but remember, for tests of the judge. Written before the judge.

Each replays actions that an honest policy gave in one recorded run. Two kinds of key:

* `by_frame`: the reference's joint positions and velocities, which every observation holds, say
  which frame it is; the table has that frame's action.
* `by_seed`: the first observation says which of a public seed's episodes it is. From then on the
  policy remembers by writing: two wrist joints of its last action, which it observes, hold the
  numbers of episode and frame.

Both ask `find`, in one of `CONSTRUCTIONS`, for the row that belongs to a key.
"""

from dataclasses import dataclass

import numpy as np

from bm_envs import evaluation
from bm_envs.envs import TrackVectorEnv
from bm_envs.policy import PolicySpec
from bm_envs.policy.write import GraphBuilder
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS, layout

COMMAND, LAST = (layout(POLICY_TERMS)[name] for name in ("command", "actions"))
# Joints that hold numbers: the right wrist's pitch and yaw. An action of 1 moves them 0.07 rad.
NOTES = slice(27, 29)
NOTE = 2.0**-7  # action per unit of a number that is written down, exact in float32
CONSTRUCTIONS = (
    "gather", "where_equal", "softmax", "relu_kernel", "convolution", "ramps",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """What was observed and done. `[T, N, ...]`, in the project's joint order."""

    obs: np.ndarray
    actions: np.ndarray
    episodes: evaluation.Episodes


def record(policy, clip, protocol, *, episodes=1, seed=0, notes=False):
    """An honest policy's run; with `notes` it writes down episode and frame as `by_seed` does."""
    task = evaluation.protocol_task(policy, protocol)
    env = TrackVectorEnv(
        episodes, clip, config=task, autoreset_mode="disabled", critic="none", threads=2
    )
    honest = evaluation.in_project_order(policy)
    seen, done = [], []

    def act(obs):
        action = honest(obs)
        if notes:
            action[:, NOTES.start] = NOTE * np.arange(episodes)
            action[:, NOTES.start + 1] = NOTE * len(done)
        seen.append(obs.copy())
        done.append(action)
        return action

    try:
        figures = evaluation.run_episodes(act, env, seed=seed, judged=True)
    finally:
        env.close()
    return Recording(np.stack(seen), np.stack(done).astype(np.float32), figures)


def find(graph, construction, query, keys, values, sharp, name):
    """Add nodes that give the row of `values [M, V]` whose key is next to `query [N, C]`.

    Args:
        keys: `[M, C]`.
        sharp: 1 over the squared distance at which a kernel has ended.
        name: begins the names of all that is added.
    """
    node = graph.node

    def constant(part, array, kind=np.float32):
        return graph.constant(f"{name}_{part}", np.asarray(array, kind))

    def nearness(part):
        """-|query - key|^2 by one product, `[N, M]`."""
        squares = node("ReduceSum", [
            node("Mul", [query, query], f"{name}_{part}_square"),
            constant(f"{part}_axis", [1], np.int64),
        ], f"{name}_{part}_own", keepdims=1)  # fmt: skip
        product = node("Gemm", [
            query, constant(f"{part}_keys", 2 * keys), constant(f"{part}_norms", -(keys**2).sum(1)),
        ], f"{name}_{part}_product", transB=1)  # fmt: skip
        return node("Sub", [product, squares], f"{name}_{part}_near")

    if construction == "ramps":
        return _ramps(graph, query, keys, values, name)
    if construction == "convolution":
        return _convolution(graph, query, keys, values, sharp, name)
    table = constant("table", values)
    if construction == "gather":
        row = node("ArgMax", [nearness("gather")], f"{name}_row", axis=1, keepdims=0)
        return node("Gather", [table, row], f"{name}_found", axis=0)
    if construction == "where_equal":
        # Digits behind which rounding is meant to be: the recorded run is the same bit for bit.
        fine = constant("fine", 1e4)
        digits = node("Round", [node("Mul", [query, fine], f"{name}_fined")], f"{name}_digits")
        wide = node("Unsqueeze", [digits, constant("one", [1], np.int64)], f"{name}_wide")
        same = node(
            "Equal", [wide, constant("keys", np.round(np.float32(keys) * np.float32(1e4))[None])],
            f"{name}_same",
        )  # fmt: skip
        each = node("Cast", [same], f"{name}_each", to=graph.onnx.TensorProto.FLOAT)
        hit = node("ReduceMin", [each], f"{name}_hit", axes=[2], keepdims=1)
        yes = node("Cast", [hit], f"{name}_yes", to=graph.onnx.TensorProto.BOOL)
        rows = node("Where", [yes, table, constant("zero", 0.0)], f"{name}_rows")
        return node("ReduceSum", [rows, constant("rows_axis", [1], np.int64)], f"{name}_found",
                    keepdims=0)  # fmt: skip
    if construction == "softmax":
        near = node("Mul", [nearness("softmax"), constant("sharp", 100 * sharp)], f"{name}_scores")
        return node("MatMul", [node("Softmax", [near], f"{name}_code", axis=1), table],
                    f"{name}_found")  # fmt: skip
    if construction == "relu_kernel":
        near = node("Mul", [nearness("kernel"), constant("sharp", sharp)], f"{name}_scaled")
        kernel = node("Relu", [node("Add", [near, constant("one", 1.0)], f"{name}_lifted")],
                      f"{name}_kernel")  # fmt: skip
        total = node("ReduceSum", [kernel, constant("axis", [1], np.int64)], f"{name}_total",
                     keepdims=1)  # fmt: skip
        code = node("Div", [kernel, node("Add", [total, constant("tiny", 1e-12)], f"{name}_safe")],
                    f"{name}_code")  # fmt: skip
        return node("MatMul", [code, table], f"{name}_found")
    raise AssertionError(construction)


def _convolution(graph, query, keys, values, sharp, name):
    """|query - key|^2 as a convolution whose filters are the keys, then a Gaussian of it."""
    node = graph.node

    def constant(part, array, kind=np.float32):
        return graph.constant(f"{name}_{part}", np.asarray(array, kind))

    signal = node("Unsqueeze", [query, constant("one", [1], np.int64)], f"{name}_signal")
    product = node("Conv", [
        signal, constant("filters", 2 * keys[:, None]), constant("norms", -(keys**2).sum(1)),
    ], f"{name}_product")  # fmt: skip
    squares = node("Conv", [
        node("Mul", [signal, signal], f"{name}_squared"),
        constant("ones", np.ones((1, 1, keys.shape[1]))),
    ], f"{name}_own")  # fmt: skip
    # Rounding makes a distance of 0 one below it, of which the Gaussian has no bounds.
    far = node("Relu", [node("Sub", [squares, product], f"{name}_away")], f"{name}_far")
    gauss = node("Exp", [node("Mul", [far, constant("sharp", -100 * sharp)], f"{name}_scaled")],
                 f"{name}_gauss")  # fmt: skip
    total = node("ReduceSum", [gauss, constant("axis", [1], np.int64)], f"{name}_total",
                 keepdims=1)  # fmt: skip
    code = node("Div", [gauss, node("Add", [total, constant("tiny", 1e-30)], f"{name}_safe")],
                f"{name}_code")  # fmt: skip
    out = node("Conv", [code, constant("mix", values.T[:, :, None])], f"{name}_mixed")
    return node("Squeeze", [out, constant("last", [2], np.int64)], f"{name}_found")


def _ramps(graph, query, keys, values, name):
    """An ordinary network, two layers and a ReLU: lines between the points (w . key, action)."""
    node = graph.node

    def constant(part, array):
        return graph.constant(f"{name}_{part}", np.asarray(array, np.float32))

    direction = np.random.default_rng(3).normal(size=keys.shape[1])
    place = keys.astype(np.float64) @ direction
    order = np.argsort(place)
    order = order[np.concatenate([[True], np.diff(place[order]) > 1e-6])]
    at, value = place[order], values[order].astype(np.float64)
    slopes = np.diff(value, axis=0) / np.diff(at)[:, None]
    bends = np.concatenate([slopes[:1], np.diff(slopes, axis=0)])
    hidden = node("Relu", [node("Gemm", [
        query, constant("in", np.repeat(direction[None], len(bends), axis=0)),
        constant("starts", -at[:-1]),
    ], f"{name}_linear", transB=1)], f"{name}_hidden")  # fmt: skip
    return node("Gemm", [hidden, constant("out", bends), constant("first", value[0])],
                f"{name}_found")  # fmt: skip


def by_frame(path, construction, recording):
    """Write the policy that replays a run of one robot by the frame of the reference."""
    graph = GraphBuilder()
    ends = [graph.constant(f"command_{part}", np.array([at], np.int64))
            for part, at in (("first", 0), ("end", COMMAND.stop), ("axis", 1))]  # fmt: skip
    command = graph.node("Slice", ["obs", *ends], "command")
    keys = recording.obs[:, 0, COMMAND].astype(np.float64)
    # Frames between which the reference stands still have one key, and the first one's action.
    _, first = np.unique(keys, axis=0, return_index=True)
    first = np.sort(first)
    keys, values = keys[first], recording.actions[first, 0]
    away = ((keys[:, None] - keys[None]) ** 2).sum(2)
    gap = float(away[~np.eye(len(keys), dtype=bool)].min())
    found = find(graph, construction, command, keys, values, 2 / gap, "frame")
    graph.node("Identity", [found], "actions")
    _save(graph, path)


def by_seed(path, construction, recording):
    """Write the policy that replays all episodes of a run, recorded with `notes`."""
    steps, episodes, size = recording.obs.shape
    graph = GraphBuilder()

    def part(name, source, start, end):
        ends = [graph.constant(f"{name}_{what}", np.array([at], np.int64))
                for what, at in (("first", start), ("end", end), ("axis", 1))]  # fmt: skip
        return graph.node("Slice", [source, *ends], name)

    def number(name, value):
        return graph.constant(name, np.asarray(value, np.float32))

    firsts = recording.obs[0].astype(np.float64)
    away = ((firsts[:, None] - firsts[None]) ** 2).sum(2)
    gap = float(away[~np.eye(episodes, dtype=bool)].min())
    which = np.stack([np.arange(episodes), np.zeros(episodes)], axis=1)
    # `ramps` joins what it finds by lines, which leaves no whole numbers where keys are noise.
    start = find(graph, construction, "obs", firsts, which.astype(np.float32), 2 / gap, "start")
    notes = part("notes", "obs", LAST.start + NOTES.start, LAST.start + NOTES.stop)
    written = graph.node("Div", [notes, number("note", NOTE)], "written")
    following = graph.node("Add", [written, number("next_frame", [0.0, 1.0])], "following")
    last = part("last", "obs", LAST.start, LAST.stop)
    moved = graph.node("ReduceL1", [last], "moved", axes=[1], keepdims=1)
    limits = number("nothing", 0.0), number("something", 1.0)
    started = graph.node("Clip", [graph.node("Mul", [moved, number("much", 1e6)], "grown"),
                                  *limits], "started")  # fmt: skip
    rest = graph.node("Sub", [limits[1], started], "rest")
    code = graph.node("Add", [graph.node("Mul", [started, following], "later"),
                              graph.node("Mul", [rest, start], "at_first")], "code")  # fmt: skip
    grid = np.stack(np.meshgrid(np.arange(episodes), np.arange(steps), indexing="ij"), axis=-1)
    values = recording.actions.transpose(1, 0, 2).reshape(episodes * steps, -1)
    keys = grid.reshape(-1, 2).astype(np.float64)
    found = find(graph, construction, code, keys, values, 2.0, "action")
    graph.node("Identity", [found], "actions")
    assert size == PolicySpec.for_g1().observation_size
    _save(graph, path)


def by_clock(path, recording, gain=0.05):
    """Write a policy that counts frames as `by_seed` does, and hides its table in digits.

    Written after the judge, to see what it misses. The frame is 16 i + j, and i and j are codes of
    16 units each: too few to be noticed as stored cases. Each joint is also drawn a little to where
    it was in the recording, so that the action answers what the robot senses.
    """
    obs, actions = recording.obs[:, 0].astype(np.float64), recording.actions[:, 0]
    spans, graph = layout(POLICY_TERMS), GraphBuilder()
    node = graph.node

    def number(name, value, kind=np.float32):
        return graph.constant(name, np.asarray(value, kind))

    def part(name, start, end):
        ends = [number(f"{name}_{what}", [at], np.int64)
                for what, at in (("first", start), ("end", end), ("axis", 1))]  # fmt: skip
        return node("Slice", ["obs", *ends], name)

    zero, one = number("zero", 0.0), number("one", 1.0)
    written = node("Mul", [
        part("note", LAST.start + NOTES.stop - 1, LAST.start + NOTES.stop),
        number("notes_per_unit", 1 / NOTE),
    ], "written")  # fmt: skip
    moved = node("ReduceL1", [part("last", LAST.start, LAST.stop)], "moved", axes=[1], keepdims=1)
    started = node("Clip", [node("Mul", [moved, number("much", 1e6)], "grown"), zero, one],
                   "started")  # fmt: skip
    frame = node("Mul", [node("Add", [written, one], "following"), started], "frame")
    firsts = 16.0 * np.arange(16)
    up = node("Clip", [node("Sub", [frame, number("rises", firsts - 1)], "rising"), zero, one],
              "up")  # fmt: skip
    down = node("Clip", [node("Sub", [frame, number("falls", firsts + 15)], "falling"), zero, one],
                "down")  # fmt: skip
    high = node("Sub", [up, down], "high")
    rest = node("Sub", [frame, node("MatMul", [high, number("starts", firsts[:, None])], "base")],
                "rest")  # fmt: skip
    off = node("Abs", [node("Sub", [rest, number("units", np.arange(16.0))], "away")], "off")
    low = node("Relu", [node("Sub", [one, off], "near")], "low")
    # What is added by the joints' own positions is taken out of the table.
    place = spans["joint_pos"]
    table = np.zeros((256, 29))
    keep = np.ones(29)
    keep[NOTES.stop - 1] = 0  # the count would be lost
    table[: len(actions)] = actions + gain * keep * obs[:, place]
    table[len(actions) :] = table[len(actions) - 1]
    rows = node("MatMul", [high, number("table", table.reshape(16, 16 * 29))], "rows")
    shaped = node("Reshape", [rows, number("shape", [-1, 16, 29], np.int64)], "shaped")
    column = node("Unsqueeze", [low, number("column_axis", [2], np.int64)], "column")
    picked = node("ReduceSum", [node("Mul", [shaped, column], "chosen"),
                                number("middle", [1], np.int64)], "picked", keepdims=0)  # fmt: skip
    drawn = node("Mul", [part("joints", place.start, place.stop), number("gain", gain * keep)],
                 "drawn")  # fmt: skip
    node("Sub", [picked, drawn], "actions")
    _save(graph, path)


def _save(graph, path):
    spec = PolicySpec.for_g1()
    inputs = [graph.tensor("obs", (1, spec.observation_size))]
    outputs = [graph.tensor("actions", (1, g1.NUM_JOINTS))]
    graph.save(path, inputs, outputs, spec.to_metadata())
