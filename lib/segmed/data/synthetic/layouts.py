"""Label maps with an anatomy: body sections, brains, fundi, and fields of cells."""

from __future__ import annotations

import math

import torch

from segmed.data.synthetic.canvas import Canvas, Kind
from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import column, octave_noise, smooth_noise, warped_view
from segmed.data.synthetic.shapes import ellipse, superellipse, tube, wander

NUCLEATED = 13  # cells that have labels for body and nucleus

# centre and radii in units of the body's half axes
_ORGANS = (
    ((-0.45, -0.15), (0.38, 0.48)),  # liver
    ((0.55, 0.15), (0.2, 0.3)),  # spleen
    ((-0.42, 0.45), (0.16, 0.2)),  # kidneys
    ((0.42, 0.45), (0.16, 0.2)),
    ((0.2, -0.3), (0.3, 0.25)),  # stomach
    ((0.0, -0.1), (0.25, 0.12)),  # pancreas, bowel
    ((0.05, -0.5), (0.2, 0.16)),
)


def draw_body(draw: Draw, count: int, size: int) -> Canvas:
    """A section through a trunk: skin, fat, wall, spine, ribs, organs with vessels or lungs with a heart."""
    canvas = Canvas(draw, count, size, Kind.AIR)
    at = warped_view(draw, count, size, zoom=(0.9, 2.2), turn=0.2, bend=0.02)
    middle = 0.5 + draw.uniform(-0.03, 0.03, count, 2)
    half = torch.stack([draw.uniform(0.4, 0.5, count), draw.uniform(0.3, 0.46, count)], 1)
    level, power = torch.zeros(count, device=draw.device), draw.uniform(2, 3, count)
    outline = superellipse(at, middle, half, level, power) + 0.03 * canvas.ripple(0)
    body = outline < 1
    canvas.paint(body, Kind.FAT)
    wall = 1 - column(draw.uniform(0.04, 0.2, count)) + 0.03 * canvas.ripple(1)
    canvas.paint(outline < wall, Kind.TISSUE)
    cavity = wall - column(draw.uniform(0.05, 0.14, count))
    inside = outline < cavity
    fill = canvas.paint(inside, torch.where(draw.chance(0.5, count), int(Kind.FAT), int(Kind.TISSUE)))
    loops = canvas.ripple(2) > column(draw.uniform(0.2, 1.2, count))
    bowel = canvas.paint(inside & loops, Kind.ORGAN)
    chest = draw.chance(0.35, count)
    for side in (-1, 1):
        centre = middle + half * torch.tensor([0.5 * side, -0.02], device=draw.device)
        lung = ellipse(
            at, centre, half * draw.uniform(0.36, 0.5, count, 2) * half.new_tensor([1.0, 1.5]), level
        )
        mask = (lung + 0.12 * canvas.ripple(side + 1) < 1) & inside & column(chest)
        air = canvas.paint(mask, Kind.GAS)
        vessels = canvas.paint(
            mask & (canvas.fine[:, (side + 1) // 2].abs() < 0.07) & (lung < 0.85), Kind.FLUID
        )
        canvas.offer(air, vessels)
    for index, (place, extent) in enumerate(_ORGANS):
        centre = middle + half * (half.new_tensor(place) + 0.07 * draw.normal(count, 2))
        radii = half * half.new_tensor(extent) * draw.log_uniform(0.7, 1.35, count, 2)
        field = ellipse(at, centre, radii, draw.uniform(-0.5, 0.5, count))
        field = field + column(draw.uniform(0.05, 0.22, count)) * canvas.ripple(index)
        shown = column(~chest if index != 4 else chest | draw.chance(0.7, count)) & inside
        organ = canvas.paint((field < 1) & shown, Kind.ORGAN)
        if index < 5:
            odd = (
                column(draw.chance(0.3, count))
                & (field + 0.6 * canvas.ripple(index + 2) < 0.25)
                & (field < 1)
            )
            inner = canvas.paint(
                odd & shown, torch.where(draw.chance(0.6, count), int(Kind.LESION), int(Kind.GAS))
            )
            canvas.offer(organ, inner)
            canvas.offer(inner, weight=0.4)
        else:
            canvas.offer(organ)
    back = middle + half * half.new_tensor([0.0, 0.62])
    spread = draw.uniform(0.8, 1.25, count)[:, None] * half.mean(1, keepdim=True)
    vertebra = ellipse(at, back, spread * half.new_tensor([0.17, 0.14]), level) + 0.06 * canvas.ripple(3)
    arch = ellipse(at, back + half * half.new_tensor([0, 0.16]), spread * half.new_tensor([0.22, 0.1]), level)
    bone = canvas.paint((vertebra < 1) | ((arch + 0.25 * canvas.ripple(0)).sub(0.85).abs() < 0.15), Kind.BONE)
    marrow = canvas.paint(vertebra < column(draw.uniform(0.6, 0.95, count)), Kind.RIM)
    cord = canvas.paint(
        ellipse(at, back + half * half.new_tensor([0, 0.2]), spread * 0.055 + 0 * half, level) < 1, Kind.FLUID
    )
    artery = back + half * half.new_tensor([0.08, -0.24]) + 0.02 * draw.normal(count, 2)
    aorta = canvas.paint(ellipse(at, artery, spread * 0.075 * torch.ones_like(half), level) < 1, Kind.FLUID)
    turn = torch.atan2(at[1] - column(middle[:, 1]), at[0] - column(middle[:, 0]))
    number, phase = column(draw.integers(8, 18, count)), column(draw.uniform(0, 6.3, count))
    band = (outline - cavity - 0.035).abs() < column(draw.uniform(0.015, 0.035, count))
    canvas.paint(band & (torch.cos(turn * number + phase) > column(draw.uniform(0.2, 1.3, count))), Kind.BONE)
    canvas.offer(bone, marrow)
    canvas.offer(cord, weight=0.5)
    canvas.offer(aorta)
    canvas.offer(*range(1, canvas.used + 1), weight=0.25)
    canvas.offer(fill, bowel, weight=0.1)
    return canvas


def draw_chest(draw: Draw, count: int, size: int) -> Canvas:
    """A trunk seen from the front: two lungs on their diaphragms, a heart between them, collar bones, a
    nodule."""
    canvas = Canvas(draw, count, size, Kind.AIR)
    at = warped_view(draw, count, size, zoom=(0.85, 1.5), turn=0.12, bend=0.012)
    middle, level = 0.5 + draw.uniform(-0.03, 0.03, count, 2), torch.zeros(count, device=draw.device)
    half = torch.stack([draw.uniform(0.4, 0.52, count), draw.uniform(0.45, 0.65, count)], 1)
    trunk = superellipse(at, middle, half, level, draw.uniform(2.5, 6, count)) + 0.02 * canvas.ripple(0)
    canvas.paint(trunk < 1, Kind.TISSUE)
    heart_at = middle + half * (half.new_tensor([0.12, 0.2]) + 0.04 * draw.normal(count, 2))
    radii = half * draw.uniform(0.2, 0.36, count, 2)
    heart = ellipse(at, heart_at, radii, level + 0.6) + 0.08 * canvas.ripple(1)
    column_of = ellipse(
        at, middle - half * half.new_tensor([0.0, 0.2]), half * half.new_tensor([0.13, 0.75]), level
    )
    mediastinum = torch.minimum(heart, column_of + 0.1 * canvas.ripple(2))
    for side in (-1, 1):
        centre = middle + half * (half.new_tensor([0.45 * side, -0.1]) + 0.03 * draw.normal(count, 2))
        extent = half * draw.uniform(0.85, 1.15, count, 2) * half.new_tensor([0.36, 0.62])
        field = superellipse(at, centre, extent, level - 0.12 * side, draw.uniform(2, 3.2, count))
        dome_at = centre + extent * (half.new_tensor([-0.1 * side, 1.15]) + 0.1 * draw.normal(count, 2))
        dome = ellipse(at, dome_at, extent * half.new_tensor([1.1, 0.6]), level)
        lung = (field + 0.05 * canvas.ripple(side + 2) < 1) & (dome > 1) & (mediastinum > 1) & (trunk < 0.97)
        air = canvas.paint(lung, Kind.GAS)
        vessels = canvas.paint(
            lung & (canvas.fine[:, (side + 1) // 2].abs() < 0.05) & (field < 0.7), Kind.CORE
        )
        nodule_at = centre + extent * draw.uniform(-0.7, 0.7, count, 2)
        nodule = ellipse(
            at, nodule_at, extent * draw.uniform(0.06, 0.35, count, 1), level
        ) + 0.2 * canvas.ripple(3)
        spot = canvas.paint((nodule < 1) & lung & column(draw.chance(0.4, count)), Kind.LESION)
        canvas.offer(air, vessels, spot, weight=2)
        canvas.offer(spot)
        shoulder = middle + half * half.new_tensor([0.5 * side, -0.72])
        collar = ellipse(at, shoulder, half * half.new_tensor([0.42, 0.045]), level - 0.3 * side)
        bone = canvas.paint((collar + 0.1 * canvas.ripple(side) < 1) & ~lung, Kind.BONE)
        canvas.offer(bone)
    canvas.offer(canvas.paint((heart < 1) & (trunk < 0.97), Kind.ORGAN))
    canvas.offer(*range(1, canvas.used + 1), weight=0.2)
    return canvas


def draw_brain(draw: Draw, count: int, size: int) -> Canvas:
    """A head section: scalp, skull, folded grey and white matter, ventricles, deep nuclei, now and then a
    tumour."""
    canvas = Canvas(draw, count, size, Kind.AIR)
    at = warped_view(draw, count, size, zoom=(0.75, 1.6), bend=0.015)
    middle, level = 0.5 + draw.uniform(-0.03, 0.03, count, 2), draw.uniform(-0.1, 0.1, count)
    half = torch.stack([draw.uniform(0.32, 0.42, count), draw.uniform(0.38, 0.47, count)], 1)
    head = ellipse(at, middle, half, level) + 0.02 * canvas.ripple(0)
    stripped = column(draw.chance(0.4, count))
    canvas.paint((head < 1) & ~stripped, Kind.FAT)
    canvas.paint((head < 0.94) & ~stripped, Kind.BONE)
    canvas.paint((head < 0.88) & ~stripped, Kind.FLUID)
    brain = head < 0.85 + 0.02 * canvas.ripple(1)
    folds = octave_noise(draw, count, size, (10, 16), 0.6)
    deep = column(draw.uniform(0.25, 0.5, count))  # of the furrows, in half axes
    depth = ((0.85 - head) / deep).clamp(-1, 1.5)  # 0 at the surface, 1 where furrows end
    furrow = column(draw.uniform(0.5, 0.9, count)) * (1 - depth).clamp(min=0).sqrt()
    x = at[0] - column(middle[:, 0])
    right = column(draw.chance(0.5, count)) & (
        x > 0
    )  # one half may be a region of its own, as some atlases have it
    grey = canvas.paint(brain & ~right, Kind.ORGAN)
    grey_right = canvas.paint(brain & right, Kind.ORGAN)
    canvas.kinds[:, grey_right] = canvas.kinds[:, grey]
    is_white = brain & (folds.abs() > furrow) & (depth > column(draw.uniform(0.08, 0.2, count)))
    white = canvas.paint(is_white & ~right, Kind.TISSUE)
    white_right = canvas.paint(is_white & right, Kind.TISSUE)
    gap = folds.abs() < furrow * column(draw.uniform(0.05, 0.45, count))
    cleft = (x.abs() < 0.006) & ((at[1] - column(middle[:, 1])).abs() > 0.15)
    fluid = canvas.paint(brain & (gap | cleft), Kind.FLUID)
    size_of = column(draw.log_uniform(0.5, 1.5, count))
    shown = column(draw.chance(0.8, count))
    ventricles = []
    for side in (-1, 1):
        centre = middle + half * half.new_tensor([0.14 * side, -0.03])
        radii = half * half.new_tensor([0.09, 0.3])
        field = ellipse(at, centre, radii, level + 0.25 * side) + 0.25 * canvas.ripple(2 + side)
        ventricles.append(canvas.paint((field < size_of) & shown & brain, Kind.FLUID))
        lower = ellipse(
            at,
            middle + half * half.new_tensor([0.3 * side, 0.05]),
            half * half.new_tensor([0.1, 0.17]),
            level,
        )
        nucleus = canvas.paint(
            (lower + 0.15 * canvas.ripple(side) < 1) & shown & (canvas.labels != ventricles[-1]), Kind.ORGAN
        )
        canvas.offer(ventricles[-1])
        canvas.offer(nucleus)
    place = middle + half * draw.uniform(-0.6, 0.6, count, 2)
    radii = half * draw.log_uniform(0.08, 0.35, count)[:, None]
    tumour = ellipse(at, place, radii, level) + 0.3 * canvas.ripple(1)
    present = column(draw.chance(0.4, count)) & brain
    halo = canvas.paint((tumour < 1) & present, Kind.LESION)
    core = canvas.paint(
        (tumour + 0.3 * canvas.ripple(2) < column(draw.uniform(0.2, 0.8, count))) & present, Kind.CORE
    )
    canvas.offer(halo, core, weight=2)
    canvas.offer(core, weight=0.5)
    canvas.offer(white)
    canvas.offer(grey)
    canvas.offer(white_right)
    canvas.offer(grey_right, weight=0.5)
    canvas.offer(*ventricles)
    canvas.offer(*range(grey, canvas.used + 1), weight=0.7)
    canvas.offer(fluid, weight=0.1)
    return canvas


def draw_fundus(draw: Draw, count: int, size: int) -> Canvas:
    """The back of an eye: disc with cup, macula, bright and dark spots; vessels cross the disc and belong to
    it."""
    canvas = Canvas(draw, count, size, Kind.TISSUE)
    at = warped_view(draw, count, size, zoom=(0.9, 2.2), turn=0.4, bend=0.008)
    level = draw.uniform(0, math.pi, count)
    side = torch.where(draw.chance(0.5, count), -1.0, 1.0)
    disc_at = torch.stack([0.5 + side * draw.uniform(0.02, 0.25, count), draw.uniform(0.42, 0.58, count)], 1)
    radius = draw.uniform(0.06, 0.14, count)
    macula = disc_at - torch.stack([side * 5 * radius * 0.9, -0.3 * radius], 1)
    field = ellipse(at, macula, (1.2 * radius)[:, None].expand(-1, 2), level)
    canvas.offer(canvas.paint(field + 0.2 * canvas.ripple(0) < 1, Kind.RIM), weight=0.4)
    spots = canvas.ripple(3) + 0.6 * octave_noise(draw, count, size, (30, 50))
    canvas.paint(
        spots > column(draw.uniform(1.6, 4, count)),
        torch.where(draw.chance(0.5, count), int(Kind.LESION), int(Kind.CORE)),
    )
    radii = radius[:, None] * draw.log_uniform(0.85, 1.18, count, 2)
    rim = ellipse(at, disc_at, radii, level) + 0.04 * canvas.ripple(1)
    disc = canvas.paint(rim < 1, Kind.ORGAN)
    cup_at = disc_at + 0.2 * radii * draw.uniform(-1, 1, count, 2)
    cup = ellipse(at, cup_at, radii * draw.uniform(0.3, 0.75, count, 2), level) + 0.06 * canvas.ripple(2)
    pale = canvas.paint((cup < 1) & (rim < 0.97), Kind.CORE)
    canvas.offer(disc, pale, weight=3)
    canvas.offer(pale)
    canvas.vessels = torch.zeros_like(rim, dtype=torch.bool)
    for vessel in range(8):
        way = (1 if vessel % 2 else -1) * math.pi / 2 + draw.uniform(-0.5, 0.5, count)
        start = disc_at + 0.3 * radii * draw.uniform(-1, 1, count, 2)
        points = wander(draw, start, 7, draw.uniform(0.3, 0.8, count), way, 0.3)
        thin = torch.linspace(1, 0.3, 8, device=draw.device)
        width = radius[:, None] * draw.uniform(0.03, 0.1, count)[:, None] * thin
        canvas.vessels |= (tube(at, points, width) < 0) & column(draw.chance(0.85, count))
    return canvas


def draw_cells(draw: Draw, count: int, size: int) -> Canvas:
    """Many cells alike, apart or pressed together; some samples show a nucleus, often lobed, in each."""
    ground = torch.where(draw.chance(0.7, count), int(Kind.AIR), int(Kind.TISSUE))
    canvas = Canvas(draw, count, size, ground)
    two_tone = draw.chance(0.5, count)
    at = warped_view(draw, count, size, zoom=(0.7, 1.4), turn=3.2, bend=0.015)
    across = torch.where(two_tone, draw.log_uniform(1.6, 3.8, count), draw.log_uniform(2.5, 5.5, count))
    crowd = draw.uniform(0.55, 1.2, count)
    oblong = draw.uniform(0, 0.45, count)
    rough = column(draw.log_uniform(0.01, 0.1, count))
    size_spread, empty = draw.uniform(0.05, 0.35, count), draw.uniform(0, 0.4, count)
    lobes = column(draw.log_uniform(0.02, 0.45, count))
    bare, plain = draw.chance(0.4, count), []  # red cells lie among white ones
    nearest = torch.full_like(at[0], 9.0)
    which = torch.zeros_like(canvas.labels)
    nuclear = torch.zeros_like(which, dtype=torch.bool)
    field_of = smooth_noise(draw, count, size, 14, 3)
    for cell in range(27):
        # cells in the order of a spiral of lattice places around the middle of the view
        ring = math.sqrt(cell / math.pi) * 1.02
        turn = cell * math.pi * (3 - math.sqrt(5))
        place = torch.tensor([ring * math.cos(turn), ring * math.sin(turn)], device=draw.device)
        centre = 0.5 + (place + 0.22 * draw.normal(count, 2)) / across[:, None]
        present = (cell == 0) | (~draw.chance(0.4, count) | (draw.uniform(0, 1, count) > empty))
        present = present & ((cell < NUCLEATED) | ~two_tone)
        radius = 0.5 * crowd / across * (1 + size_spread * draw.normal(count)).clamp(0.4, 1.8)
        longer = 1 + oblong * draw.uniform(0.3, 1, count)
        radii = torch.stack([radius * longer, radius / longer], 1)
        angle = draw.uniform(0, math.pi, count)
        field = ellipse(at, centre, radii, angle) + rough * (canvas.ripple(cell) + field_of[:, cell % 3])
        wins = (field < nearest) & (field < 1) & column(present)
        nearest = torch.where(wins, field, nearest)
        which.masked_fill_(wins, cell + 1)
        nucleated = ~draw.chance(0.65, count) | ~bare
        within = centre + 0.15 * radii * draw.uniform(-1, 1, count, 2)
        kernel = ellipse(at, within, radii * draw.uniform(0.4, 0.95, count, 1), angle)
        lobed = kernel + lobes * field_of[:, (cell + 1) % 3]
        nuclear = torch.where(wins, (lobed < 1) & column(nucleated), nuclear)
        plain.append(~nucleated)
    body = torch.where(two_tone, int(Kind.CYTOPLASM), int(Kind.NUCLEUS))
    for cell in range(27):
        canvas.paint(which == cell + 1, torch.where(plain[cell] & two_tone, int(Kind.ORGAN), body))
    for cell in range(NUCLEATED):
        nucleus = NUCLEATED + 1 + cell
        canvas.labels.masked_fill_((which == cell + 1) & nuclear & column(two_tone), nucleus)
        canvas.kinds[:, nucleus] = int(Kind.NUCLEUS)
        canvas.offer(cell + 1, nucleus, only=two_tone)
        canvas.offer(nucleus, weight=0.3, only=two_tone)
    for cell in range(27):
        canvas.offer(cell + 1, only=~two_tone)
    return canvas
