"""`ns-ext run ...`: commands on run folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import tyro


@dataclass
class Relocate:
    """Make a moved run folder loadable by ns-eval, ns-render and ns-viewer from any directory.

    Rewrites config.yml in the folder, so that its paths are absolute and right where the folder lies now.
    """

    run: tyro.conf.Positional[Path]
    """The run's folder: the one that holds config.yml."""
    data: Optional[Path] = None
    """Where the training data lies now; left out, the stored path stays, made absolute where it can be found."""

    def main(self) -> None:
        """Rewrite the config and say how to use it."""
        from nerfstudio_ext.engine.checkpoints import relocate_run

        config = relocate_run(self.run, self.data)
        print(f"{config.parent} now loads from any directory, for example:  ns-eval --load-config '{config}'")
