"""Video as data and as numbers; `open` reads a .bnrv file."""


def open(path, device="cpu"):
    """A .bnrv file as a sequence of frames: `open("clip.bnrv")[k]` decodes frame k alone (uint8, height x width x 3).

    Args:
        path: The file.
        device: Where to decode.

    Raises:
        InputError: There is no such file, or it is no readable video.
    """
    from nerfstudio_ext.models.stored_video import read_video

    return read_video(path, device)
