"""Adds the start-up files to the wheel; everything else is in setup.cfg.

They belong at the wheel's root, beside the package, where `site` looks for them. No
option of setuptools puts a file there: package data lies inside a package, and
data_files in sys.prefix. An editable wheel has no build_lib that gets installed, so
there they go straight into the folder that becomes the wheel.

README.md is the description on PyPI too, where its relative links would lead nowhere.
"""

import os
import re

from setuptools import setup
from setuptools.command.build_py import build_py

STARTUP_FILES = ("prefect_ecs_plugin.pth", "prefect_ecs_plugin.start")

REPOSITORY = "https://github.com/prefect-ecs-plugin/prefect-ecs-plugin"


def description():
    """README.md, with links and pictures that lead to the repository."""
    with open("README.md", encoding="utf-8") as file:
        text = file.read()
    text = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:|#)", rf"\1{REPOSITORY}/raw/main/", text)
    return re.sub(r"(?<=\]\()(?![a-z]+:|#)", f"{REPOSITORY}/blob/main/", text)


class BuildWithStartupFiles(build_py):
    def run(self):
        super().run()
        root = self._wheel_root()
        self.mkpath(root)
        for name in STARTUP_FILES:
            self.copy_file(name, os.path.join(root, name), preserve_mode=False)

    def get_outputs(self, include_bytecode=1):
        outputs = super().get_outputs(include_bytecode)
        if not self._is_editable():
            outputs += [os.path.join(self.build_lib, name) for name in STARTUP_FILES]
        return outputs

    def get_source_files(self):
        return [*super().get_source_files(), *STARTUP_FILES]

    def _wheel_root(self):
        if self._is_editable():
            return self.get_finalized_command("install").install_lib
        return self.build_lib

    def _is_editable(self):
        return getattr(self, "editable_mode", False)


setup(
    cmdclass={"build_py": BuildWithStartupFiles},
    long_description=description(),
    long_description_content_type="text/markdown",
)
