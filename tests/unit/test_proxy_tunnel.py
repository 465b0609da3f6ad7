"""A tunnel's count of frames: however the bytes are cut, it knows when a frame has come whole."""

from __future__ import annotations

import itertools
import random
from typing import cast

import pytest

from launcher.proxy.fast.tunnel import End, Tunnel

LENGTHS = (0, 1, 4, 5, 123, 125, 126, 127, 128, 130, 131, 132, 300, 65_535, 65_536, 70_000)


def framed(length: int, *, masked: bool) -> bytes:
    """A binary frame. Its data looks like heads of long frames."""
    bit = 0x80 if masked else 0
    if length < 126:
        head = bytes((0x82, bit | length))
    elif length < 65_536:
        head = bytes((0x82, bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x82, bit | 127)) + length.to_bytes(8, "big")
    return head + (b"mask" if masked else b"") + b"\x82\x7f" * (length // 2) + b"\x82" * (length % 2)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_only_the_end_of_a_frame_counts_as_one(seed: int, masked: bool) -> None:
    rng = random.Random(seed)
    frames = [framed(rng.choice(LENGTHS), masked=masked) for _ in range(30)]
    stream = b"".join(frames)
    ends, at = {0}, 0
    for frame in frames:
        at += len(frame)
        ends.add(at)
    # Cuts at the ends of frames, around them and anywhere.
    cuts = {end + rng.choice((-2, -1, 0, 0, 1, 2, 3)) for end in ends} | {rng.randrange(len(stream)) for _ in range(60)}
    points = sorted(cut for cut in cuts | {0, len(stream)} if 0 <= cut <= len(stream))
    passed: list[bytes] = []
    end = End(cast(Tunnel, None), masked=masked)
    end.write = passed.append
    for start, stop in itertools.pairwise(points):
        end.data_received(stream[start:stop])
        assert end.is_between_frames == (stop in ends), (start, stop)
    assert b"".join(passed) == stream
