"""The page in a real browser: headless Chromium, skipped loudly where there is none (see chromium.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.play.chromium import Tab, browser, new_tab
from tests.play.conftest import endless_world, without_endings
from tests.play.serving import Serving, serving
from tests.videos import read_video
from worldsim.play.game import Game, load_game


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    game = load_game("quickstart", beside_real=False)
    without_endings(game.model)  # a pole would fall in the middle of a test
    config = game.model.dynamics.config
    game.model.dynamics.config = replace(config, shortcut_fraction=0.25)  # as if it had learned one step as well
    with serving(game) as one:
        yield one


@pytest.fixture
def tab(chromium: str, served: Serving, tmp_path: Path) -> Iterator[Tab]:
    """The released CartPole; when the test ends nothing may have complained in the console."""
    with new_tab(chromium, served.address, tmp_path) as page:
        page.wait_for_text("status", "Waits for your first action")
        yield page


def choose(tab: Tab, selector: str, value: object) -> None:
    """Set a list or a slider, as a viewer does."""
    tab.evaluate(
        f"(() => {{ const one = document.querySelector({selector!r}); one.value = {str(value)!r};"
        " for (const kind of ['input', 'change']) one.dispatchEvent(new Event(kind)); })()"
    )


def step_number(tab: Tab) -> int:
    return int(tab.text("figure-step"))


def pause(tab: Tab) -> None:
    tab.click("#play")
    tab.wait_for_text("play", "Play")


def one_step_from_point(tab: Tab, code: str) -> str:
    """The picture after one step with a key held, from the only save point."""
    tab.click("#points button")
    tab.wait_for_text("figure-step", "0")
    tab.key(code, "keyDown")  # on a dream that stands still: it waits for the step
    tab.key("KeyN")
    tab.wait_for_text("figure-step", "1")
    tab.key(code, "keyUp")
    return tab.picture()


def test_keys_move_the_dream(tab: Tab) -> None:
    tab.key("KeyP")
    pause(tab)  # so that a key does not begin the dream
    tab.click("#restart")
    tab.wait_for_text("status", "Waits")
    tab.click("#save")
    tab.wait("document.querySelectorAll('#points button').length === 1")
    tab.key("KeyN")
    tab.wait_for_text("status", "Paused")
    left, right, again = (one_step_from_point(tab, code) for code in ("ArrowLeft", "ArrowRight", "KeyA"))
    assert left != right
    assert left == again, "A does what the left arrow does, and a save point keeps all that is random"


def test_the_first_key_begins_and_a_pause_pauses(tab: Tab) -> None:
    tab.key("ArrowRight")
    tab.wait("Number(document.getElementById('figure-step').innerText) > 2")
    tab.wait("document.querySelector('#actions button.taken').innerText.startsWith('right')")
    pause(tab)
    before, picture = step_number(tab), tab.picture()
    time.sleep(0.5)
    assert (step_number(tab), tab.picture()) == (before, picture)


def test_the_policy_plays_and_hands_over(tab: Tab) -> None:
    tab.key("KeyO")
    tab.wait_for_text("status", "The policy plays")
    tab.wait("Number(document.getElementById('figure-step').innerText) > 30")
    tab.wait("Number(document.getElementById('figure-fps').innerText) >= 5")
    assert tab.evaluate("document.getElementById('policy').getAttribute('aria-pressed')") == "true"
    tab.key("ArrowLeft")
    tab.wait("document.getElementById('policy').getAttribute('aria-pressed') === 'false'")


def test_mouse_and_touch_act(tab: Tab) -> None:
    tab.click("#actions button:last-child")
    tab.wait("document.querySelector('#actions button.taken')?.innerText.startsWith('right')")
    tab.click("#restart")
    tab.wait_for_text("status", "Waits")
    tab.resize(390, 844, 3, mobile=True)
    tab.touch("#actions button:first-child")
    tab.wait("document.querySelector('#actions button.taken')?.innerText.startsWith('left')")


def test_record_downloads_a_file_that_plays(tab: Tab) -> None:
    tab.click("#record")
    tab.wait_for_text("record", "Stop")
    for number in range(1, 6):
        tab.key("KeyN")
        tab.wait_for_text("figure-step", str(number))
    tab.click("#record")
    file = tab.downloads / "quickstart-dream.mp4"
    ends = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < ends
        tab.evaluate("0")
        time.sleep(0.05)
    frames = read_video(file)
    assert len(frames) == 6
    assert frames.std() > 1


def test_settings_reach_the_dream(tab: Tab) -> None:
    choose(tab, "#temperature", 2.5)
    choose(tab, "#sampling-steps", 1)
    choose(tab, "#speed", 0.25)
    tab.key("KeyN")
    tab.wait_for_text("figure-step", "1")
    assert tab.text("temperature-shown") == "2.50"
    assert tab.evaluate("document.getElementById('sampling-steps').value") == "1"
    assert tab.evaluate("document.getElementById('speed').value") == "0.25"


def test_what_is_refused_is_shown(tab: Tab) -> None:
    assert tab.evaluate("document.getElementById('error').hidden") is True
    tab.click("#save")
    tab.wait("document.querySelectorAll('#points button').length === 1")
    tab.evaluate("document.querySelector('#points button').dispatchEvent(new Event('click'))")
    tab.key("KeyZ")  # there is nothing to rewind to: the button is off and does nothing
    tab.evaluate("fetch('/nothing-there', {method: 'HEAD'}).then(() => 0)")
    assert tab.complaints, "the console is listened to"
    tab.complaints.clear()
    tab.evaluate("(() => { document.getElementById('rewind').disabled = false; })()")
    tab.key("KeyZ")
    tab.wait_for_text("error-text", "nothing before")
    tab.click("#error-close")
    assert tab.evaluate("document.getElementById('error').hidden") is True


@pytest.mark.parametrize("ratio", [1, 1.5, 3])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_pixels_are_whole_and_nothing_is_cut_off(tab: Tab, width: int, ratio: float) -> None:
    tab.resize(width, 800, ratio, mobile=width < 500)
    tab.wait(f"innerWidth === {width} && devicePixelRatio === {ratio}")
    tab.wait(
        "((box) => {"
        f" const scale = box.width * {ratio} / 48;"
        " return Math.abs(scale - Math.round(scale)) < 0.01"
        " && Math.abs(box.width / box.height - 3) < 0.003"  # browsers lay out in 64ths of a pixel
        f" && {width / 3} < box.width && box.width <= {width};"
        " })(document.getElementById('dream').getBoundingClientRect())"
    )
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("getComputedStyle(document.getElementById('dream')).imageRendering") == "pixelated"


def test_everything_has_a_name(tab: Tab) -> None:
    """Text alternatives: what a screen reader is told of every picture, button and field."""
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "image", "img", "slider", "combobox", "Canvas", "canvas")
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles
    ]
    assert len(named) > 12
    assert all(name for _, name in named), named
    assert any(name.startswith("Dream of CartPole-v1, step 0") for _, name in named)


def test_it_is_reached_by_tab_and_shown_in_dark(tab: Tab) -> None:
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.resize(1280, 800, dark=True)
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != light
    reached = set()
    for _ in range(20):
        tab.key("Tab")
        reached.add(tab.evaluate("document.activeElement.id"))
    assert {"play", "step", "restart", "save", "policy", "record", "speed", "temperature"} <= reached


def test_sliders_for_box_actions(chromium: str, tmp_path: Path) -> None:
    game = Game("tiny", endless_world("box"))
    with serving(game) as one, new_tab(chromium, one.address, tmp_path) as tab:
        tab.wait("document.querySelectorAll('#actions input').length === 2")
        choose(tab, "#actions input", -0.5)
        tab.wait("Number(document.getElementById('figure-step').innerText) > 0")
        tab.wait("document.getElementById('dream').getAttribute('aria-label').includes('-0.50, 0.00')")
        tab.key("ArrowRight", "keyDown")
        tab.wait("document.getElementById('dream').getAttribute('aria-label').includes('action 1.00, 0.00')")
        tab.key("ArrowRight", "keyUp")
        tab.wait("document.getElementById('dream').getAttribute('aria-label').includes('action 0.00, 0.00')")


def test_sliders_for_actions_of_several_parts(chromium: str, tmp_path: Path) -> None:
    game = Game("tiny", endless_world("multi_discrete"))
    with serving(game) as one, new_tab(chromium, one.address, tmp_path) as tab:
        tab.wait("document.querySelectorAll('#actions input').length === 2")
        tab.key("ArrowRight", "keyDown")
        tab.wait("document.getElementById('dream').getAttribute('aria-label').includes('action 2, 0')")
        tab.key("ArrowRight", "keyUp")
        tab.wait("document.getElementById('dream').getAttribute('aria-label').includes('action 0, 0')")


def test_reality_stands_beside_the_dream(chromium: str, game_beside_real: Game, tmp_path: Path) -> None:
    with serving(game_beside_real) as one, new_tab(chromium, one.address, tmp_path) as tab:
        tab.wait_for_text("real-status", "step 0")
        start = tab.picture("real")
        assert start == tab.picture("dream"), "the dream begins with the real frame"
        tab.key("KeyN")
        tab.wait_for_text("real-status", "step 1")
        assert tab.picture("real") != start
        assert tab.picture("dream") not in (start, tab.picture("real"))


def test_a_server_that_is_gone_is_told(chromium: str, tmp_path: Path) -> None:
    with serving(Game("tiny", endless_world())) as one:
        opened = new_tab(chromium, one.address, tmp_path)
        tab = opened.__enter__()
        tab.wait_for_text("status", "Waits")
    tab.wait_for_text("error-text", "connection to worldsim is lost")
    assert tab.text("status") == "Disconnected"
    tab.close()
