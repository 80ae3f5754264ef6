"""Label maps of things without an anatomy: noise regions, blobs, primitives, tubes, shells, lobes,
lesions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segmed.data.synthetic.canvas import Canvas, Kind
from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import column, octave_noise, warped_view
from segmed.data.synthetic.shapes import capsule, ellipse, polygon, smooth_union, superellipse, tube, wander

SOME = (Kind.ORGAN, Kind.ORGAN, Kind.LESION, Kind.FLUID, Kind.BONE, Kind.TISSUE, Kind.GAS, Kind.FAT)


def any_kind(draw: Draw, count: int) -> Tensor:
    """(B,) kinds that a thing without anatomy may have, organs most often."""
    return torch.tensor(SOME, device=draw.device)[draw.integers(0, len(SOME), count)]


def any_ground(draw: Draw, count: int) -> Tensor:
    """(B,) tissue or air."""
    return torch.where(draw.chance(0.7, count), int(Kind.TISSUE), int(Kind.AIR))


def draw_noise(draw: Draw, count: int, size: int) -> Canvas:
    """Regions where one of several warped noises is the largest (SynthMorph), from scattered to cell-like
    ones."""
    canvas = Canvas(draw, count, size, any_ground(draw, count))
    x, y = warped_view(draw, count, size)
    regions = draw.integers(2, 8, count)
    pull = torch.where(draw.chance(0.25, count), 0.0, draw.log_uniform(8, 120, count))
    rough = draw.uniform(0.2, 0.8, count)
    best = octave_noise(draw, count, size, (3, 7, 16), rough) + 0.3
    which = torch.zeros_like(canvas.labels)
    for region in range(1, 8):
        centre = draw.uniform(0.05, 0.95, count, 2)
        score = octave_noise(draw, count, size, (3, 7, 16), rough)
        far = (x - column(centre[:, 0])) ** 2 + (y - column(centre[:, 1])) ** 2
        score = score - column(pull) * far + column(torch.where(pull > 0, 1.2, 0.0))
        wins = (score > best) & column(region <= regions)
        best = torch.where(wins, score, best)
        which.masked_fill_(wins, region)
    for region in range(1, 8):
        label = canvas.paint(which == region, any_kind(draw, count))
        canvas.offer(label)
    return canvas


def draw_blobs(draw: Draw, count: int, size: int) -> Canvas:
    """Star-convex blobs with perturbed radius (AnyStar), many of them against each other."""
    canvas = Canvas(draw, count, size, any_ground(draw, count))
    at = warped_view(draw, count, size)
    behind = draw.chance(0.5, count)
    touching = draw.chance(0.6, count)
    blobs = draw.integers(1, 9, count)
    alike, kind = draw.chance(0.4, count), any_kind(draw, count)
    base = draw.log_uniform(0.05, 0.22, count)
    rough = draw.uniform(0.03, 0.3, count)
    centre, size_before = draw.uniform(0.25, 0.75, count, 2), torch.zeros(count, device=draw.device)
    for blob in range(9):
        radii = base[:, None] * draw.log_uniform(0.7, 1.6, count, 2)
        step = draw.uniform(0, 2 * math.pi, count)
        reach = (size_before + radii.mean(1)) * draw.uniform(0.75, 1.05, count)
        near = centre + reach[:, None] * torch.stack([step.cos(), step.sin()], 1)
        inside = (near > 0.02).all(1) & (near < 0.98).all(1)
        if blob:
            centre = torch.where((touching & inside)[:, None], near, draw.uniform(0.05, 0.95, count, 2))
        field = ellipse(at, centre, radii, step) + column(rough) * canvas.ripple(blob)
        where = column(blob <= blobs) & (column(~behind) | (canvas.labels == 0))
        canvas.object(field, torch.where(alike, kind, any_kind(draw, count)), blob, where)
        size_before = radii.mean(1)
    return canvas


def draw_primitives(draw: Draw, count: int, size: int) -> Canvas:
    """Ellipses, rectangles, rounded and plain, diamonds and polygons (PrimGeoSeg), some over each other."""
    canvas = Canvas(draw, count, size, any_ground(draw, count))
    at = warped_view(draw, count, size, bend=0.012)
    shapes = draw.integers(1, 9, count)
    powers = torch.tensor([1.0, 2.0, 2.0, 3.0, 4.0, 12.0], device=draw.device)
    for shape in range(9):
        centre, angle = draw.uniform(0.05, 0.95, count, 2), draw.uniform(0, math.pi, count)
        radii = draw.log_uniform(0.05, 0.3, count)[:, None] * draw.log_uniform(0.6, 1.6, count, 2)
        if shape % 3 == 2:
            field = polygon(
                at, centre, radii, angle, draw.integers(3, 9, count), draw.uniform(-0.2, 0.2, count, 9)
            )
        else:
            field = superellipse(at, centre, radii, angle, powers[draw.integers(0, 6, count)])
        canvas.object(field, any_kind(draw, count), shape, column(shape <= shapes))
    return canvas


def draw_tubes(draw: Draw, count: int, size: int) -> Canvas:
    """Curves of varying radius, some of them branches of another one."""
    canvas = Canvas(draw, count, size, any_ground(draw, count))
    at = warped_view(draw, count, size)
    tubes, trunk = draw.integers(1, 5, count), draw.uniform(0.2, 0.8, count, 2)
    branches = draw.chance(0.4, count)
    kind = any_kind(draw, count)
    for index in range(5):
        start = torch.where(branches[:, None], trunk, draw.uniform(0.1, 0.9, count, 2))
        length = draw.log_uniform(0.25, 1.4, count)
        points = wander(draw, start, 8, length, draw.uniform(0, 2 * math.pi, count), 0.5)
        radius = draw.log_uniform(0.008, 0.07, count)[:, None] * draw.log_uniform(0.6, 1.6, count, 9)
        trunk = torch.where(draw.chance(0.5, count)[:, None], points[:, 4], trunk) if index else points[:, 3]
        field = 1 + tube(at, points, radius) / 0.03
        wall = canvas.paint(
            (field < 1) & column(index <= tubes), torch.where(branches, kind, any_kind(draw, count))
        )
        hollow = column(draw.chance(0.25, count)) & (tube(at, points, 0.55 * radius) < 0)
        inner = canvas.paint(hollow & (canvas.labels == wall), Kind.CORE)
        canvas.offer(wall, inner)
    canvas.offer(*range(1, canvas.used + 1), weight=0.5)
    return canvas


def draw_shells(draw: Draw, count: int, size: int) -> Canvas:
    """Rings around a cavity as of a heart, nested and eccentric ones, crescents and C-shapes."""
    canvas = Canvas(draw, count, size, any_ground(draw, count))
    at = warped_view(draw, count, size)
    nests = draw.integers(1, 4, count)
    centre, radii = draw.uniform(0.3, 0.7, count, 2), torch.ones(count, 2, device=draw.device)
    for nest in range(3):
        angle = draw.uniform(0, 2 * math.pi, count)
        side = torch.stack([angle.cos(), angle.sin()], 1)
        if nest:  # beside the one before, as the right ventricle lies beside the left
            beside = draw.chance(0.5, count)[:, None]
            centre = torch.where(beside, centre + 1.3 * radii * side, draw.uniform(0.15, 0.85, count, 2))
        radii = draw.log_uniform(0.09, 0.32, count)[:, None] * draw.log_uniform(0.85, 1.18, count, 2)
        shown = column(nest <= nests) & ((canvas.labels == 0) | column(draw.chance(0.3, count)))
        rough = column(draw.uniform(0, 0.12, count)) * canvas.ripple(nest)
        outer = ellipse(at, centre, radii, angle) + rough
        thickness, shift = draw.uniform(0.1, 0.55, count), draw.uniform(0, 1, count)
        crescent = draw.chance(0.3, count)
        # a crescent's cavity touches its border
        shift = torch.where(crescent, thickness, 0.4 * shift * thickness)
        within = centre + (shift * radii.mean(1))[:, None] * side
        inner = ellipse(at, within, radii * (1 - thickness)[:, None], angle) + rough
        wedge = ellipse(at, centre + 0.8 * radii * side, radii * draw.uniform(0.3, 0.8, count, 2), angle)
        cut = column(draw.chance(0.25, count)) & (wedge < 1)
        ring = canvas.paint((outer < 1) & (inner >= 1) & shown & ~cut, any_kind(draw, count))
        cavity = canvas.paint((inner < 1) & (outer < 1) & shown & ~column(crescent), any_kind(draw, count))
        deep = inner + 0.2 * canvas.ripple(nest + 1)
        spots = canvas.paint(
            (deep < column(draw.uniform(-0.5, 0.6, count))) & (canvas.labels == cavity), Kind.CORE
        )
        canvas.offer(ring)
        canvas.offer(cavity, spots)
        canvas.offer(ring, cavity, spots, weight=0.5)
        canvas.offer(spots, weight=0.15)
    return canvas


def draw_lobes(draw: Draw, count: int, size: int) -> Canvas:
    """Discs and shafts melted into concave shapes with heads and lobes, as a femur, a jaw or a lung has."""
    canvas = Canvas(draw, count, size, any_ground(draw, count))
    at = warped_view(draw, count, size)
    objects = draw.integers(1, 4, count)
    for index in range(4):
        start = draw.uniform(0.15, 0.85, count, 2)
        thick = draw.log_uniform(0.03, 0.15, count)
        inward = torch.atan2(0.5 - start[:, 1], 0.5 - start[:, 0])  # so that most of it is seen
        heading, length = inward + 0.8 * draw.normal(count), draw.log_uniform(0.15, 0.9, count)
        points = wander(draw, start, 4, length, heading, 0.55)
        fields = []
        for m in range(4):
            ends = thick[:, None] * draw.log_uniform(0.7, 1.4, count, 2)
            fields.append(capsule(at, points[:, m], points[:, m + 1], ends[:, 0], ends[:, 1]))
        for m in (0, 2, 4):
            knob = thick * draw.log_uniform(0.5, 2.2, count)
            place = points[:, m] + 0.5 * thick[:, None] * draw.normal(count, 2)
            fields.append(capsule(at, place, points[:, m], knob, knob))
        field = smooth_union(fields) / column(thick) + 1 + 0.15 * canvas.ripple(index)
        canvas.object(field, any_kind(draw, count), index, column(index <= objects))
    return canvas


def draw_lesions(draw: Draw, count: int, size: int) -> Canvas:
    """One to three irregular patches on a plain ground, with a core, a halo that belongs to them, or
    islands."""
    canvas = Canvas(draw, count, size, Kind.TISSUE)
    at = warped_view(draw, count, size)
    ground = octave_noise(draw, count, size, (3, 8), 0.5)
    for _ in range(2):
        band = column(draw.uniform(0.4, 2.5, count))
        canvas.paint(ground > band, any_kind(draw, count))
        ground = octave_noise(draw, count, size, (3, 8), 0.5)
    lesions = torch.where(draw.chance(0.6, count), 1, draw.integers(2, 4, count))
    scale = torch.where(lesions == 1, draw.log_uniform(0.1, 0.42, count), draw.log_uniform(0.04, 0.14, count))
    for index in range(3):
        centre = draw.uniform(0.1, 0.9, count, 2) if index else draw.uniform(0.35, 0.65, count, 2)
        radii = scale[:, None] * draw.log_uniform(0.75, 1.33, count, 2)
        rough = column(draw.log_uniform(0.02, 0.3, count))
        halo = ellipse(at, centre, radii, draw.uniform(0, math.pi, count)) + rough * canvas.ripple(index)
        halo = halo + column(draw.chance(0.4, count) * draw.uniform(0, 0.15, count)) * octave_noise(
            draw, count, size, (24, 48)
        )
        shown = column(index < lesions)
        outer = canvas.paint((halo < 1) & shown, Kind.LESION)
        off = centre + 0.3 * radii * draw.uniform(-1, 1, count, 2)
        inside = ellipse(at, off, radii * draw.uniform(0.35, 0.8, count, 2), draw.uniform(0, math.pi, count))
        inside = inside + 1.3 * rough * canvas.ripple(index + 1)
        core = canvas.paint((inside < 1) & (halo < 1) & shown & column(draw.chance(0.65, count)), Kind.CORE)
        enough = column(draw.uniform(0.6, 2.5, count))
        islands = canvas.paint(
            (canvas.ripple(index + 2) > enough) & (halo < 0.9) & shown, any_kind(draw, count)
        )
        canvas.offer(outer, core, islands)
        canvas.offer(core, weight=0.2)
    return canvas
