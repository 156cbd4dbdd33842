"""Streets as they are found: where the crosswalk is, who stands on the pavements, what is on the road."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..kinds.street import LAMP_RADIUS, LAMP_RGB, LAMP_Y
from ..kinds.street_cars import CARS
from ..kinds.street_people import HAIRS, SKINS
from ..places.street import CROSSWALK_PX, HOURS, KERB_PX, NEAR_KERB_PX, STOP_LINE_PX, stop_line_x
from ..state import ALBEDO, FIRST_BODY_ID, WORLD_SIZE, Backdrop, Body, State
from .base import FLOORS, WALLS, jitter, pick

CAR_COLOURS = (
    "black",
    "white",
    "silver",
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "navy",
    "turquoise",
    "beige",
    "brown",
)
COAT_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise", "white", "brown")
TROUSERS = ("navy", "black", "brown", "grey", "beige", "blue")
CAR_SIZES = {
    "sedan": (11.0, 12.0),
    "suv": (12.0, 13.0),
    "van": (13.4, 14.6),
    "pickup": (11.0, 12.0),
    "bus": (14.5, 16.0),
}
CAR_WEIGHTS = {"sedan": 0.34, "suv": 0.26, "van": 0.16, "pickup": 0.14, "bus": 0.1}
BICYCLE_PX = (15.5, 17.0)
LONGEST_PX = 29.0  # half of what the longest of the cars takes that one may be replaced by
LIGHT_SIZE_PX = (36.6, 38.4)
LIGHT_HALF_PX = 12.5  # half of what it takes
WALKER_PX = (19.6, 21.0)  # in the middle of the road
NEARER = 0.003  # how much larger a walker is for each px nearer
DRIVE_PX = 22.0  # at least that far to the line
APART_PX = 20.0
PLACES = 8  # that are tried for somebody to stand
AHEAD_PX = {  # from where cars come from to the middle of the crosswalk
    "set_light": (38.0, 104.0),
    "cross": (38.0, 92.0),
    "replace_car": (81.0, 104.0),
    "drive_to_line": (104.0, 110.0),
}
ARROW_SHARE = 0.12  # of traffic lights that have arrows for lamps
HIDDEN_SHARE = 0.2  # of a walker behind a car, that may be hidden
BEHIND, LANE, FRONT = 1, 2, 3  # layers: the far pavement, the road, the near pavement


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A street before anything happens; the first car and the first walker are those that an edit is about."""

    state: State
    lamps: tuple[Body, ...]
    cars: tuple[Body, ...]
    walkers: tuple[Body, ...]

    def called(self, rng: np.random.Generator, body: Body) -> str:
        """What to call a car or a walker among the others, so that nobody takes another for it."""
        if body.kind == "pedestrian":
            noun = pick(rng, ("pedestrian", "pedestrian", "person", "walker"))
            return f"the {noun}" if len(self.walkers) == 1 else f"the {noun} in {body.colour}"
        nouns = (*body.look.nouns, "car") if body.kind in ("sedan", "suv") else body.look.nouns
        noun = pick(rng, nouns)
        alone = len(self.cars) == 1 or (
            noun != "car" and all(car.kind != body.kind for car in self.cars if car.id != body.id)
        )
        return noun if alone and rng.uniform() < 0.3 else f"{body.colour} {noun}"


def tenth(value: float) -> float:
    """Rounded, as all that is sampled is written down."""
    return float(np.round(value, 1))


def middle_of_crosswalk(backdrop: Backdrop) -> tuple[float, float]:
    """Where somebody stands in the middle of the crosswalk: x and the ground there."""
    return backdrop.detail("crossing", 64.0), backdrop.floor_y


def walker_size(walker: Body, ground_y: float, backdrop: Backdrop) -> float:
    """The size that a walker has on that ground: who is nearer is larger."""
    here = 1 + NEARER * (walker.ground_y(backdrop) - backdrop.floor_y)
    return tenth(walker.size / here * (1 + NEARER * (ground_y - backdrop.floor_y)))


def sample_stage(rng: np.random.Generator, edit: str) -> Stage | None:
    """A street in which there is what the edit needs."""
    backdrop = _sample_backdrop(rng, edit)
    ids = iter(range(FIRST_BODY_ID, FIRST_BODY_ID + 20))
    cars = _sample_cars(rng, ids, backdrop, edit)
    post = _sample_light(rng, ids, backdrop)
    walkers = _sample_walkers(rng, ids, backdrop, edit, cars, post[0].x)
    if cars is None or walkers is None:
        return None
    state = State(backdrop=backdrop, bodies=(*post, *sorted(walkers, key=lambda each: each.y), *cars))
    return Stage(
        state=state,
        lamps=tuple(post[1:]),
        cars=tuple(cars),
        walkers=tuple(walkers),
    )


def _sample_backdrop(rng: np.random.Generator, edit: str) -> Backdrop:
    side = pick(rng, (1.0, -1.0))
    ahead = tenth(rng.uniform(*AHEAD_PX[edit]))
    return Backdrop(
        wall=jitter(rng, pick(rng, WALLS), 6),
        floor=jitter(rng, pick(rng, FLOORS), 8),
        floor_y=tenth(rng.uniform(102, 106)),
        light=float(np.round(rng.uniform(-0.12, 0.12), 3)),
        decoration="none",
        decoration_x=tenth(rng.uniform(24, 104)),
        place="street",
        details=(
            ("crossing", ahead if side > 0 else tenth(WORLD_SIZE - ahead)),
            ("hour", str(pick(rng, list(HOURS)))),
            ("row", float(rng.integers(1_000_000))),
            ("side", side),
        ),
    )


def _sample_light(rng: np.random.Generator, ids: Iterator[int], backdrop: Backdrop) -> list[Body]:
    """The traffic light on the far pavement, behind the crosswalk, one of its lamps lit."""
    crossing, side = middle_of_crosswalk(backdrop)[0], backdrop.detail("side", 1.0)
    size, ground = tenth(rng.uniform(*LIGHT_SIZE_PX)), tenth(backdrop.floor_y - KERB_PX - 2.5)
    x = crossing + side * (CROSSWALK_PX + tenth(rng.uniform(5, 8)))
    x = float(np.clip(x, LIGHT_HALF_PX, WORLD_SIZE - LIGHT_HALF_PX))
    albedo = jitter(rng, pick(rng, ((80, 86, 94), (72, 92, 86), (96, 90, 82))), 4)
    post = Body(
        id=next(ids), kind="traffic_light", colour="", albedo=albedo, x=x, y=ground - size, size=size
    ).with_details(ground_y=ground)
    lit = pick(rng, list(LAMP_Y))
    kind = "arrow_signal" if rng.uniform() < ARROW_SHARE else "signal"
    return [post] + [
        Body(
            id=next(ids),
            kind=kind,
            colour=colour,
            albedo=jitter(rng, LAMP_RGB[colour], 5),
            x=x,
            y=post.y + y * size,
            size=float(np.round(LAMP_RADIUS * size, 2)),
            layer=FRONT,
        ).with_details(on=float(colour == lit), host=float(post.id), host_x=0.0, host_y=y)
        for colour, y in LAMP_Y.items()
    ]


def _sample_cars(rng: np.random.Generator, ids: Iterator[int], backdrop: Backdrop, edit: str) -> list[Body] | None:
    """Cars before the stop line and beyond the crosswalk; None when one is needed and does not fit."""
    crossing, side = middle_of_crosswalk(backdrop)[0], backdrop.detail("side", 1.0)
    ahead = crossing if side > 0 else WORLD_SIZE - crossing
    line = ahead - CROSSWALK_PX - STOP_LINE_PX - 1
    rooms = [(2.0, line), (ahead + CROSSWALK_PX + 4, WORLD_SIZE - 2.0)]
    needed = edit in ("replace_car", "drive_to_line")
    cars: list[Body] = []
    for k, (left, right) in enumerate(rooms):
        if k == 1 and edit == "drive_to_line":
            break
        if not (needed and k == 0) and rng.uniform() < 0.25:
            continue
        car = _sample_car(rng, cars, needed and k == 0)
        half = _room_of(car, edit if k == 0 else "")
        spare = right - left - 2 * half - (DRIVE_PX if edit == "drive_to_line" else 0)
        if spare < 0:
            if needed and k == 0:
                return None
            continue
        x = tenth(left + half + rng.uniform(0, spare))
        x = x if side > 0 else tenth(WORLD_SIZE - x)
        cars.append(replace(car, id=next(ids), x=x, y=backdrop.floor_y - car.size).with_details(flip=side))
    return cars


def _room_of(car: Body, edit: str) -> float:
    """Half the length in px that a car takes, and whatever it may turn into."""
    if edit != "replace_car":
        return half_length(car)
    return max(half_length(car), LONGEST_PX)


def _sample_car(rng: np.random.Generator, others: Sequence[Body], main: bool) -> Body:
    """A car of no colour that another one has; the one that the edit is about is no bus."""
    names = [name for name in CARS if not (main and name == "bus")]
    weights = np.array([CAR_WEIGHTS[name] for name in names])
    kind = str(rng.choice([*names, *([] if main else ["bicycle"])], p=_shares([*weights, *([] if main else [0.25])])))
    colour = pick(rng, [each for each in CAR_COLOURS if all(each != other.colour for other in others)])
    size = tenth(rng.uniform(*CAR_SIZES.get(kind, BICYCLE_PX)))
    car = Body(
        id=0, kind=kind, colour=colour, albedo=jitter(rng, ALBEDO[colour], 6), x=0.0, y=0.0, size=size, layer=LANE
    )
    if kind == "bicycle":
        return car.with_details(**_person(rng), roll=tenth(rng.uniform(0, 6)))
    return car.with_details(roll=tenth(rng.uniform(0, 6)))


def _shares(weights: Sequence[float]) -> np.ndarray:
    return np.array(weights) / sum(weights)


def _person(rng: np.random.Generator) -> dict[str, float | str]:
    return {
        "skin": float(rng.integers(len(SKINS))),
        "hair": str(pick(rng, list(HAIRS))),
        "trousers": pick(rng, TROUSERS),
    }


def of_another_look(rng: np.random.Generator, stage: Stage, before: Body) -> Body | None:
    """The car that another one turns into: where it stands, another model, another colour."""
    kind = pick(rng, [name for name in CARS if name not in (before.kind, "bus")])
    used = {body.colour for body in stage.state.bodies}
    colour = pick(rng, [each for each in CAR_COLOURS if each not in used])
    size = tenth(rng.uniform(*CAR_SIZES[kind]))
    ground = before.ground_y(stage.state.backdrop)
    return replace(before, kind=kind, colour=colour, albedo=jitter(rng, ALBEDO[colour], 6), y=ground - size, size=size)


def _sample_walkers(
    rng: np.random.Generator,
    ids: Iterator[int],
    backdrop: Backdrop,
    edit: str,
    cars: Sequence[Body] | None,
    light_x: float,
) -> list[Body] | None:
    """People on the far pavement, clear of the traffic light; the one who is to cross may stand on the near one."""
    count = int(rng.integers(1, 3)) if edit == "cross" else int(rng.integers(0, 3))
    crossing = middle_of_crosswalk(backdrop)[0]
    far, near = tenth(backdrop.floor_y - KERB_PX - 3.5), tenth(backdrop.floor_y + NEAR_KERB_PX + 6)
    walkers: list[Body] = []
    for k in range(count):
        crosses = edit == "cross" and k == 0
        at_front = crosses and rng.uniform() < 0.35
        ground = near if at_front else far
        taken = [(other.x, APART_PX) for other in walkers]
        taken += [(car.x, half_length(car) + 4) for car in cars or ()] if at_front else [(light_x, APART_PX)]
        xs = [tenth(each) for each in rng.uniform(10, WORLD_SIZE - 10, PLACES)]
        x = next(
            (x for x in xs if _is_free(x, taken) and (not crosses or _is_away(x, crossing, light_x, at_front))), None
        )
        if x is None:
            return None
        walkers.append(_sample_walker(rng, next(ids), x, ground, backdrop, walkers, FRONT if at_front else BEHIND))
        if not at_front and any(_hides(car, walkers[-1], edit, backdrop) for car in cars or ()):
            return None
        if crosses:
            walkers[-1] = walkers[-1].with_details(flip=1.0 if x < crossing else -1.0)
    return walkers


def _is_free(x: float, taken: Sequence[tuple[float, float]]) -> bool:
    """Whether x is far enough from all that is there: each an x, and how far is enough."""
    return all(abs(x - other) >= apart for other, apart in taken)


def _is_away(x: float, crossing: float, light_x: float, at_front: bool) -> bool:
    """Whether who is to cross may start at x: not too near, not too far, and not behind the traffic light."""
    return 24 <= abs(x - crossing) <= 56 and (at_front or (x > crossing) != (light_x > crossing))


def _hides(car: Body, walker: Body, edit: str, backdrop: Backdrop) -> bool:
    """Whether a car, or what it turns into, or where it drives, covers more of a walker behind it than the feet."""
    left, top, right, _ = car.span
    if edit == "replace_car":
        tallest = max(CAR_SIZES[car.kind][1], CAR_SIZES["van"][1]) if car.kind in CAR_SIZES else car.size
        left, top, right = left - 6, backdrop.floor_y - 2 * tallest, right + 6
    if edit == "drive_to_line":
        line = stop_line_x(backdrop.detail("crossing", 64.0), backdrop.detail("side", 1.0))
        left, right = min(left, line), max(right, line)
    foot = walker.ground_y(backdrop)
    near = left - 0.4 * walker.size < walker.x < right + 0.4 * walker.size
    return near and foot - top > HIDDEN_SHARE * 2 * walker.size


def half_length(vehicle: Body) -> float:
    """The larger distance in px from a vehicle's middle to its nose or its tail."""
    left, _, right, _ = vehicle.span
    return max(right - vehicle.x, vehicle.x - left)


def _sample_walker(
    rng: np.random.Generator,
    body_id: int,
    x: float,
    ground: float,
    backdrop: Backdrop,
    others: Sequence[Body],
    layer: int,
) -> Body:
    colour = pick(rng, [each for each in COAT_COLOURS if all(each != other.colour for other in others)])
    size = tenth(rng.uniform(*WALKER_PX) * (1 + NEARER * (ground - backdrop.floor_y)))
    return Body(
        id=body_id,
        kind="pedestrian",
        colour=colour,
        albedo=jitter(rng, ALBEDO[colour], 6),
        x=x,
        y=ground - size,
        size=size,
        layer=layer,
    ).with_details(
        **_person(rng),
        bag=float(rng.uniform() < 0.3),
        cut=pick(rng, ("short", "long", "bun", "beanie")),
        flip=pick(rng, (1.0, -1.0)),
        ground_y=ground,
        phase=0.0,
        shoes=pick(rng, ("brown", "black", "red", "white")),
        stride=0.0,
        style=pick(rng, ("jacket", "coat", "dress")),
    )
