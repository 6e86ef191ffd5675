"""Optional packages, looked for before anything long begins."""

from importlib.util import find_spec

from nerfstudio_ext.engine.errors import InputError


class MissingPackageError(InputError):
    """An optional package is not installed."""


def require_packages(purpose: str, extra: str, *names: str) -> None:
    """Make sure that packages are installed, without importing them.

    Args:
        purpose: What needs them, for the message.
        extra: Extra of the suite that brings them.
        names: Modules at the top of the packages.

    Raises:
        MissingPackageError: Some are not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        noun = "package" if len(missing) == 1 else "packages"
        raise MissingPackageError(
            f"{purpose} needs the {noun} {' and '.join(missing)}: pip install 'nerfstudio-ext[{extra}]'."
        )
