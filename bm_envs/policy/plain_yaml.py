"""YAML that somebody else may have written, read as plain data: no code of a file is run."""

from __future__ import annotations

from typing import Any

from bm_envs.cli import shortened
from bm_envs.errors import PolicyError

MAX_YAML_VALUES = 20_000
MAX_YAML_DEPTH = 16


def parse_yaml(text: str) -> Any:
    """Foreign YAML as plain data: mappings with texts as keys, lists, numbers and texts.

    Bounded in depth and in the number of values, aliases counted as often as they are used. Tags
    are ignored, so that `!!python/object/apply:...` is what stands behind it.

    Raises:
        ValueError: it is no such YAML.
        PolicyError: the package is missing.
    """
    try:
        import yaml
    except ImportError:
        raise PolicyError(
            "A YAML file needs the package pyyaml: pip install 'bm-envs[deploy]'."
        ) from None
    resolver = yaml.SafeLoader("")
    constructor = yaml.constructor.SafeConstructor()
    anchors: dict[str, tuple[Any, int]] = {}
    count = documents = 0
    # What is being filled: the container, its anchor, a mapping's pending key, values within.
    stack: list[list[Any]] = []
    root: Any = None

    def put(value: Any, size: int) -> None:
        nonlocal count, root
        count += size
        if count > MAX_YAML_VALUES:
            raise ValueError(f"it holds more than {MAX_YAML_VALUES} values")
        if not stack:
            root = value
            return
        top = stack[-1]
        top[3] += size
        if isinstance(top[0], list):
            top[0].append(value)
        elif top[2] is None:
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise ValueError("a mapping has a key that is no text")
            if str(value) in top[0]:
                raise ValueError(f"the key '{shortened(str(value), 60)}' stands twice")
            top[2] = str(value)
        else:
            top[0][top[2]] = value
            top[2] = None

    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ValueError("it holds more than one document")
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in anchors:  # also one of a container that is not complete
                    raise ValueError(f"the alias '{shortened(event.anchor, 60)}' leads nowhere")
                put(*anchors[event.anchor])
            elif isinstance(event, yaml.ScalarEvent):
                tag = resolver.resolve(yaml.ScalarNode, event.value, (event.implicit[0], False))
                node = yaml.ScalarNode(tag, event.value)
                plain = event.style is None and tag.rpartition(":")[2] in (
                    "null", "bool", "int", "float",
                )  # fmt: skip
                value = constructor.construct_object(node) if plain else event.value
                if event.anchor:
                    anchors[event.anchor] = value, 1
                put(value, 1)
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(stack) >= MAX_YAML_DEPTH:
                    raise ValueError(f"it nests more than {MAX_YAML_DEPTH} deep")
                new: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                stack.append([new, event.anchor, None, 1])
            elif isinstance(event, yaml.CollectionEndEvent):
                done, anchor, _, size = stack.pop()
                if anchor:
                    anchors[anchor] = done, size
                count -= size - 1  # its values are counted already
                put(done, size)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None
    except (OverflowError, RecursionError) as error:
        raise ValueError(type(error).__name__) from None
    return root
