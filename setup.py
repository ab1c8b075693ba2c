"""What `pyproject.toml` cannot say of a wheel.

The scripts that the command `bm-envs` starts go into the wheel as they are, as files of
`bm_envs/_scripts` and no packages of their own. And the wheel's tag says what is inside: that of
this platform if the compiled library is, `py3-none-any` where no compiler made one.
"""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

COMMANDS = runpy.run_path(str(Path(__file__).parent / "bm_envs" / "__main__.py"))["COMMANDS"]
SCRIPTS = sorted(command.script for command in COMMANDS.values() if command.script)


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


setup(cmdclass={"build_py": WithScripts, "bdist_wheel": HonestTag})
