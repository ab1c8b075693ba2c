"""The option of the conformance suite: which physics backends it is to hold to the protocol."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Pytest's hook; it is looked for in the root's file only."""
    parser.addoption(
        "--backend", nargs="+", default=None, metavar="NAME",
        help="backends for tests/conformance, which must then be there; by default all that are",
    )  # fmt: skip
