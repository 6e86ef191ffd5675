"""Giving a written video the sound of its source, without coding it again."""

import os
from pathlib import Path

from nerfstudio_ext.engine.errors import InputError


def check_sound(source: Path) -> None:
    """Make sure that a file has sound, before anything is written for it.

    Raises:
        InputError: It cannot be read or has none.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(f"file:{source}") as sounds:
            if sounds.streams.audio:
                return
    except (OSError, FFmpegError) as error:
        raise InputError(f"The sound of {source} cannot be read ({error.strerror}): check the path.") from error
    raise InputError(f"{source} has no sound: leave out --keep-audio.")


def add_audio(video: Path, source: Path) -> None:
    """Copy the first audio stream of a source into a video file, up to the video's end.

    Args:
        video: Video file as `write_video` wrote it; replaced when the new one is whole.
        source: File with sound, of the same clip from its start.

    Raises:
        InputError: The source cannot be read or has no sound, or the container cannot hold its kind of sound.
    """
    import av
    from av.error import FFmpegError

    check_sound(source)
    draft = video.with_name(f".{video.stem}-audio-{os.getpid()}{video.suffix}")
    try:
        with (
            av.open(f"file:{video}") as pictures,
            av.open(f"file:{source}") as sounds,
            av.open(f"file:{draft}", "w", options={"movflags": "+faststart"}) as output,
        ):
            picture_stream, sound_stream = pictures.streams.video[0], sounds.streams.audio[0]
            copies = [output.add_stream_from_template(stream) for stream in (picture_stream, sound_stream)]
            end = 0.0
            for packet in pictures.demux(picture_stream):
                if packet.dts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    packet.stream = copies[0]
                    output.mux(packet)
            for packet in sounds.demux(sound_stream):
                if packet.dts is not None and packet.pts * packet.time_base < end:
                    packet.stream = copies[1]
                    output.mux(packet)
        os.replace(draft, video)
    except (OSError, FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"The sound of {source} does not fit into a {video.suffix} video ({reason}): try .mkv."
        ) from error
    finally:
        draft.unlink(missing_ok=True)
