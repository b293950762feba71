"""The window of render_mode="human", on a screen that is not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tests.worlds import tiny_world
from worldsim.dream import DreamEnv, DreamVectorEnv
from worldsim.errors import UserError
from worldsim.window import GAP, SHORTEST_SIDE, Window, tiled

pygame = pytest.importorskip("pygame", reason='pygame is not installed: pip install "worldsim-rl[classic]"')


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pygame.display.quit()


def test_frames_are_tiled_from_left_to_right_and_down() -> None:
    frames = [np.full((4, 6, 3), 10 * (i + 1), np.uint8) for i in range(5)]
    picture = tiled(frames)
    assert picture.shape == (2 * 4 + GAP, 3 * 6 + 2 * GAP, 3)
    for i, frame in enumerate(frames):
        top, left = (4 + GAP) * (i // 3), (6 + GAP) * (i % 3)
        assert np.array_equal(picture[top : top + 4, left : left + 6], frame)
    assert not picture[4 + GAP :, 2 * (6 + GAP) :].any()
    assert np.array_equal(tiled(frames[:1]), frames[0])


def test_the_window_shows_the_frame_and_can_be_opened_again() -> None:
    frame = np.random.default_rng(0).integers(256, size=(64, 48, 3), dtype=np.uint8)
    window = Window("test", 1000)
    for _ in range(2):
        window.show([frame])
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        scale = SHORTEST_SIDE // 48
        assert np.array_equal(shown, frame.repeat(scale, 0).repeat(scale, 1))
        window.close()
        assert pygame.display.get_surface() is None


def test_dreams_are_shown_by_reset_and_by_each_step() -> None:
    model = tiny_world()
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    env = DreamEnv(model, render_mode="human")
    pixels, _ = env.reset(seed=0)
    for _ in range(3):
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        assert np.array_equal(shown[::24, ::24], pixels)
        assert env.render() is None
        pixels, *_ = env.step(1)
    env.close()
    assert pygame.display.get_surface() is None
    rows = DreamVectorEnv(model, 5, render_mode="human")
    rows.reset(seed=0)
    rows.step(np.zeros(5, np.int64))
    assert pygame.display.get_surface() is not None
    rows.close()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    env = DreamEnv(tiny_world(), render_mode="human")
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    with pytest.raises(UserError, match="cannot open a window"):
        env.reset(seed=0)
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match="needs pygame: pip install"):
        env.reset(seed=0)
