"""What `pyproject.toml` cannot say of a wheel.

The scripts that the command `bm-envs` starts go into the wheel as they are, as files of
`bm_envs/_scripts` and no packages of their own. The wheel's tag says what is inside: that of this
platform if the compiled library is, `py3-none-any` where no compiler made one. And the long
description is README with links that work away from the repository.
"""

import re
import runpy
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
COMMANDS = runpy.run_path(str(ROOT / "bm_envs" / "__main__.py"))["COMMANDS"]
SCRIPTS = sorted(command.script for command in COMMANDS.values() if command.script)
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCAL = r"(?!https?:|#)"
PICTURES = (rf"!\[[^\]]*\]\({LOCAL}([^)\s]+)\)", rf"<img [^>]*?src=\"{LOCAL}([^\"]+)\"[^>]*>")
PICTURE = r"!\[[^\]]*\]\([^)\s]*\)"
LINK = rf"(?<!!)\[((?:{PICTURE}|[^\[\]])*)\]\({LOCAL}([^)\s]+)\)"


def long_description(readme: str, address: str, version: str) -> str:
    """README's text for a page elsewhere: links to files lead to the version's tag at `address`.

    Without an address a link to a file becomes its text, and a picture is left out.
    """
    pages, raw = f"{address}/blob/v{version}/", f"{address}/raw/v{version}/"
    for pattern in PICTURES:  # before links, since a link may hold one
        readme = re.sub(
            pattern, lambda at: at[0].replace(at[1], raw + at[1]) * bool(address), readme
        )
    return re.sub(LINK, rf"[\1]({pages}\2)" if address else r"\1", readme)


def urls(address: str) -> dict[str, str]:
    """What a package index shows beside the description; nothing without an address."""
    if not address:
        return {}
    return {
        "Source": address, "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
    }  # fmt: skip


class WithScripts(build_py):
    """The package's modules, and copies of the scripts beside them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a clone runs its own files
            for script, copy in self._copies().items():
                self.mkpath(str(Path(copy).parent))
                self.copy_file(script, copy)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copies = [] if self.editable_mode else [*self._copies().values()]
        return [*super().get_outputs(include_bytecode), *copies]

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *SCRIPTS]

    def _copies(self) -> dict[str, str]:
        return {script: f"{self.build_lib}/bm_envs/_scripts/{script}" for script in SCRIPTS}


class HonestTag(bdist_wheel):
    """A wheel for this platform alone if this build has compiled the library."""

    def run(self) -> None:
        libraries = [Path(name) for name in self.get_finalized_command("build_ext").get_outputs()]
        for library in libraries:
            library.unlink(missing_ok=True)  # an earlier build's
        self.run_command("build")
        if not any(library.is_file() for library in libraries):
            self.distribution.ext_modules = []
            self.root_is_pure = True
        super().run()


ADDRESS = SETTINGS["tool"]["bm-envs"]["repository"].rstrip("/")
README = (ROOT / "README.md").read_text(encoding="utf-8")

if __name__ == "__main__":
    setup(
        cmdclass={"build_py": WithScripts, "bdist_wheel": HonestTag},
        long_description=long_description(README, ADDRESS, SETTINGS["project"]["version"]),
        long_description_content_type="text/markdown",
        project_urls=urls(ADDRESS),
    )
