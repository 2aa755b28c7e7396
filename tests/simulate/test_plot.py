"""The picture of a simulation, read back: what each line says at a time."""

import xml.etree.ElementTree as tree
from pathlib import Path

import pytest

from sluice.config.units import Seconds
from sluice.simulate.plot import HEIGHT, LEFT, WIDTH, draw_plot, tick_of
from sluice.simulate.scenario import Outage, ReplicaModel
from tests.simulate.test_simulate import STEADY, config, even, run, scenario

SVG = "{http://www.w3.org/2000/svg}"


class Picture:
    """The panels by their titles: the ceiling of each, and its lines in their order as (x, y) of the picture."""

    def __init__(self, path: Path) -> None:
        texts: list[float] = []
        self.panels: dict[str, tuple[float, list[list[tuple[float, float]]]]] = {}
        for element in tree.parse(path).getroot():
            match element.tag.removeprefix(SVG):
                case "text" if element.get("font-weight"):
                    bottom = float(element.attrib["y"]) + 10 + HEIGHT
                    lines: list[list[tuple[float, float]]] = []
                    texts = []
                    title = str(element.text)
                case "text" if element.get("text-anchor") == "end" and element.get("x") == str(LEFT - 6):
                    texts.append(float(str(element.text)))
                    self.panels[title] = (texts[-1], lines)
                case "polyline":
                    points = [pair.split(",") for pair in element.attrib["points"].split()]
                    ceiling = texts[-1]
                    lines.append([(float(x), (bottom - float(y)) * ceiling / HEIGHT) for x, y in points])

    def line(self, title: str, number: int = 0) -> list[float]:
        [(_, lines)] = [panel for name, panel in self.panels.items() if name.startswith(title)]
        return [round(value, 1) for _, value in lines[number]]

    def ends(self, title: str, number: int = 0) -> tuple[float, float]:
        [(_, lines)] = [panel for name, panel in self.panels.items() if name.startswith(title)]
        return lines[number][0][0], lines[number][-1][0]


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    """Ten calls a second for 60 s, of which the key may have five; from 20 to 30 s no upstream answers. Each costs $0.00111."""
    failing = {
        name: STEADY.__class__(
            first_token=STEADY.first_token,
            token=STEADY.token,
            outages=(Outage(at=Seconds(20), lasts=Seconds(10), kind="error"),),
        )
        for name in ("a", "b")
    }
    simulated = run(
        config({"retry": {"same_target": 0}}, {"requests": {"rate": "5/s", "burst": 5}}),
        even(600, every=0.1),
        scenario(upstreams=failing),
    )
    draw_plot(
        simulated, ReplicaModel(request=Seconds(0.2), token=Seconds(0.001), load=0.6), str(tmp_path / "p.svg")
    )
    return Picture(tmp_path / "p.svg")


def test_what_came_of_requests_stands_in_its_second(picture: Picture) -> None:
    answered, refused, failed = (picture.line("requests a second", number) for number in range(3))
    assert set(answered[2:19]) == {5.0}
    assert set(refused[2:19]) == {5.0}
    assert set(failed[2:19]) == {0.0}
    assert set(answered[21:29]) == {0.0}
    assert sum(failed[20:30]) >= 10


def test_latency_cost_streams_and_replicas_are_drawn(picture: Picture) -> None:
    assert set(picture.line("open streams")[3:18]) == {
        7.0
    }  # of 1.5 s each: three begin and end in one second, two in the next
    for number in (0, 1):
        assert set(picture.line("seconds to the first token", number)[2:19]) == {0.5}
    cost = picture.line("US dollars")
    assert sum(cost[3:18]) / 15 == pytest.approx(5 * 0.00111 * 3600, rel=0.05)
    cores, replicas = picture.line("cores", 0), picture.line("cores", 1)
    assert cores[10] == pytest.approx(10 * 0.2 + 505 * 0.001, rel=0.1)
    assert replicas[10] == 5.0


def test_a_time_without_answers_has_no_latency_and_the_picture_its_whole_width(picture: Picture) -> None:
    assert picture.ends("requests")[0] == LEFT
    assert picture.ends("requests")[1] < LEFT + WIDTH
    assert len(picture.line("seconds to the first token")) < len(picture.line("requests a second"))


@pytest.mark.parametrize(
    ("highest", "most", "tick"),
    [(0, 4, 1), (3, 4, 1), (4.1, 4, 2), (113, 4, 50), (0.03, 4, 0.01), (3700, 8, 500)],
)
def test_ticks_are_round_numbers(highest: float, most: int, tick: float) -> None:
    assert tick_of(highest, most) == pytest.approx(tick)
