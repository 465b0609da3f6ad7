"""How a tunnel's window grows and shrinks, and that all of a connection together stay within their bound."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.ssh.windows import FIRST_BYTES, LONG_SECONDS, MOST_BYTES, SHARED_BYTES, Window


@dataclass
class Channel:
    """What of asyncssh's channel is used."""

    _init_recv_window: int = FIRST_BYTES
    _recv_window: int = FIRST_BYTES

    @property
    def size(self) -> int:
        """What the window is filled up to."""
        return self._init_recv_window


@dataclass
class Share:
    """What the channels of one connection have in common."""

    lent: int = 0


def read(window: Window, count: int) -> None:
    """So much comes and is taken at once."""
    for _ in range(0, count, 32_768):
        window.took(32_768)


def test_a_window_grows_while_all_is_taken_and_not_beyond_its_bound() -> None:
    channel, share = Channel(), Share()
    window = Window(channel, share)
    read(window, FIRST_BYTES)
    assert channel.size == 2 * FIRST_BYTES
    read(window, 16 * MOST_BYTES)
    assert (channel.size, share.lent) == (MOST_BYTES, MOST_BYTES - FIRST_BYTES)


def test_the_channels_of_a_connection_grow_within_what_they_share() -> None:
    share = Share()
    channels = [Channel() for _ in range(50)]
    for channel in channels:
        read(Window(channel, share), 16 * MOST_BYTES)
    beyond = sum(channel.size - FIRST_BYTES for channel in channels)
    assert beyond == share.lent <= SHARED_BYTES
    assert channels[0].size == MOST_BYTES
    assert channels[-1].size == FIRST_BYTES


def test_a_channel_that_is_gone_leaves_its_share_to_the_others() -> None:
    share = Share()
    windows = [Window(Channel(), share) for _ in range(50)]
    for window in windows:
        read(window, 16 * MOST_BYTES)
    for window in windows:
        window.closed()
    assert share.lent == 0


def test_a_long_pause_makes_it_small_again_and_a_short_one_does_not() -> None:
    channel, share = Channel(), Share()
    window = Window(channel, share)
    read(window, 16 * MOST_BYTES)
    window.paused(10.0)
    window.resumed(10.0 + LONG_SECONDS / 2)
    assert channel.size == MOST_BYTES
    window.paused(20.0)
    window.resumed(20.0 + 2 * LONG_SECONDS)
    assert channel.size == FIRST_BYTES


def test_what_the_far_side_may_still_send_counts_until_it_was_sent() -> None:
    channel, share = Channel(), Share()
    window = Window(channel, share)
    read(window, 16 * MOST_BYTES)
    channel._recv_window = MOST_BYTES
    window.paused(0.0)
    window.resumed(2 * LONG_SECONDS)
    read(window, FIRST_BYTES)
    assert share.lent == MOST_BYTES - FIRST_BYTES
    channel._recv_window = FIRST_BYTES
    read(window, FIRST_BYTES)
    assert share.lent == 0
    read(window, 16 * MOST_BYTES)
    assert channel.size == MOST_BYTES
