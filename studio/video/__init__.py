"""The only place where moving pictures are read and written: frames out of files, files out of frames.

    for frame in video.read("speech.mp4"):  # a stream: one frame at a time, never the whole film
        frame.time, frame.pixels  # seconds, (3,H,W) float32 RGB in [0,1]

    with video.Writer("out.mp4", (480, 640), 25, audio_from="speech.mp4") as writer:
        writer.write(pixels, time)

One clock rules both sides: second 0 is the first frame of a file, and every other time, of sound as well, counts from
there. It is `pts × time_base` of the file, never a count of frames. Needs the extra `video` (the package av, which
brings its own ffmpeg).
"""

from studio.video.info import AudioTrack, VideoInfo, probe
from studio.video.reading import Frame, read
from studio.video.writing import WRITTEN, Writer

__all__ = ["WRITTEN", "AudioTrack", "Frame", "VideoInfo", "Writer", "probe", "read"]
