"""The command `ns-ext GROUP VERB`: what the suite does beside nerfstudio's own commands.

A command is a dataclass with a `main()` method; its fields become flags, and what `main()` returns, if anything, is the
exit code. To add one, give it a line in COMMANDS. Its module is imported only when it is needed, and for the help page,
so it has to be light itself: heavy imports belong inside `main()`.
"""

import difflib
import importlib
import inspect
import sys
import textwrap
import warnings
from typing import Dict, List, Optional, Sequence, Type

import tyro

from nerfstudio_ext.cli.listing import entry_point_names
from nerfstudio_ext.engine.errors import InputError

COMMANDS: Dict[str, str] = {
    "codebook inspect": "nerfstudio_ext.cli.codebook:Inspect",
    "codebook learn": "nerfstudio_ext.cli.codebook:Learn",
    "codebook load": "nerfstudio_ext.cli.codebook:Load",
    "data make": "nerfstudio_ext.cli.data:Make",
    "data people": "nerfstudio_ext.cli.data:People",
    "data person": "nerfstudio_ext.cli.data:Person",
    "demo": "nerfstudio_ext.cli.demo:Demo",
    "doctor": "nerfstudio_ext.cli.doctor:Doctor",
    "export mesh": "nerfstudio_ext.cli.export:ExportMesh",
    "human check": "nerfstudio_ext.cli.human:Check",
    "human convert": "nerfstudio_ext.cli.human_convert:Convert",
    "human fit": "nerfstudio_ext.cli.human:Fit",
    "human make": "nerfstudio_ext.cli.human:Make",
    "human masks": "nerfstudio_ext.cli.human_video:Masks",
    "human meshes": "nerfstudio_ext.cli.human:Meshes",
    "human official": "nerfstudio_ext.cli.human_official:Official",
    "human orbit": "nerfstudio_ext.cli.human:Orbit",
    "human refine-cameras": "nerfstudio_ext.cli.human_cameras:RefineCameras",
    "human repose": "nerfstudio_ext.cli.human:Repose",
    "human smpl": "nerfstudio_ext.cli.human:Smpl",
    "human snapshot": "nerfstudio_ext.cli.human_video:Snapshot",
    "human walk": "nerfstudio_ext.cli.human:Walk",
    "keypoints condition": "nerfstudio_ext.cli.condition:Condition",
    "keypoints from-fit": "nerfstudio_ext.cli.fitted_photos:FromFit",
    "keypoints icon-weights": "nerfstudio_ext.cli.reconstruct:IconWeights",
    "keypoints orbit": "nerfstudio_ext.cli.photos:Orbit",
    "keypoints photos": "nerfstudio_ext.cli.photos:Photos",
    "keypoints reconstruct": "nerfstudio_ext.cli.reconstruct:Reconstruct",
    "keypoints weights": "nerfstudio_ext.cli.condition:Weights",
    "list": "nerfstudio_ext.cli.listing:ListRegistered",
    "mesh score": "nerfstudio_ext.cli.mesh_score:Score",
    "run relocate": "nerfstudio_ext.cli.runs:Relocate",
    "video anchors": "nerfstudio_ext.cli.anchors:Anchors",
    "video compress": "nerfstudio_ext.cli.compress:Compress",
    "video decode": "nerfstudio_ext.cli.bnrv:Decode",
    "video encode": "nerfstudio_ext.cli.bnrv:Encode",
    "video info": "nerfstudio_ext.cli.bnrv:Info",
    "video play": "nerfstudio_ext.cli.bnrv:Play",
    "video prune": "nerfstudio_ext.cli.prune:Prune",
    "video rd": "nerfstudio_ext.cli.rd:RateDistortion",
    "video render": "nerfstudio_ext.cli.video:Render",
}
"""What the user types, one word or group and verb, and the class that does it."""


def main(args: Optional[Sequence[str]] = None) -> None:
    """Run one command; a user's mistake is told in one sentence and exits with 1.

    Args:
        args: Command line without the program; none takes the real one.
    """
    try:
        with warnings.catch_warnings():
            # The host calls old torch functions when it is imported, which is nothing that a user could mend.
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"nerfstudio\.")
            code = _run(list(sys.argv[1:] if args is None else args))
    except InputError as error:
        sys.stdout.flush()
        print(f"Error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run(args: List[str]) -> int:
    """Find the command that the first words name and run it with the rest."""
    words = [arg for arg in args[:2] if not arg.startswith("-")]
    for name in (" ".join(words), *words[:1]):
        if name in COMMANDS:
            rest = args[len(name.split()) :]
            return tyro.cli(command_class(name), prog=f"ns-ext {name}", args=rest).main() or 0
    inside = [name for name in COMMANDS if not words or name.split()[0] == words[0]]
    asks_for_help = len(words) == len(args) or {"-h", "--help"} & set(args)
    if inside and len(words) < 2 and asks_for_help:
        print(_overview(inside) if words else _overview(inside) + _registered())
        return 0
    close = difflib.get_close_matches(" ".join(words), inside or COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean 'ns-ext {close[0]}'?" if close else "'ns-ext --help' lists what there is."
    print(f"Error: There is no command 'ns-ext {' '.join(words or args)}'; {hint}", file=sys.stderr)
    return 2


def command_class(name: str) -> Type:
    """Class of a command."""
    module, _, kind = COMMANDS[name].partition(":")
    return getattr(importlib.import_module(module), kind)


def _overview(names: List[str]) -> str:
    """Help page of some commands, with the first line of each docstring."""
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {(inspect.getdoc(command_class(name)) or '').splitlines()[0]}" for name in names]
    usage = "usage: ns-ext COMMAND [flags]; each COMMAND tells its flags with --help"
    return "\n".join([usage, "", "commands:", *lines])


def _registered() -> str:
    """Help page of what the suite registers with nerfstudio."""
    text = ""
    for title, names in entry_point_names().items():
        listing = ", ".join(names) or "none: the package is not installed"
        text += f"\n\n{title}:\n" + textwrap.indent(textwrap.fill(listing, 96, break_on_hyphens=False), "  ")
    return text + "\n\n'ns-ext list' describes methods and dataparsers."
