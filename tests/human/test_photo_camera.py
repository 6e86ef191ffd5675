"""Cameras of photographs: projection against a loop, rays against projection, and framing of a person."""

import math

import torch

from nerfstudio_ext.human.photo_camera import PhotoCamera, frame_pictures, from_pinhole
from nerfstudio_ext.procedural.rigs import look_at_origin


def cameras() -> PhotoCamera:
    pose = look_at_origin(torch.tensor([[0.0, -3.0, 0.4], [2.0, 1.0, 0.0]]))
    camera = from_pinhole(pose, torch.tensor([[90.0, 90.0, 40.0, 52.0]]).expand(2, 4), 80, 100)
    return PhotoCamera(camera.world_to_camera, camera.focal, camera.centre, torch.tensor([[True], [False]]))


def test_points_land_where_a_loop_says():
    camera, points = cameras(), torch.rand(2, 5, 3) - 0.5
    places = camera.project(camera.local(points))
    for k in range(2):
        matrix = camera.world_to_camera[k]
        for point, place in zip(points[k], places[k]):
            x, y, z = (matrix[:, :3] @ point + matrix[:, 3]).tolist()
            scale = float(camera.focal[k]) / (z if k == 0 else 1.0)
            expected = torch.tensor([x, y]) * scale + camera.centre[k]
            torch.testing.assert_close(place, expected)


def test_rays_pass_through_the_points_that_project_into_their_pixels():
    camera, size = cameras(), 6
    origins, directions = camera.rays(size)
    places = camera.project(camera.local(origins + 2.5 * directions))
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    expected = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1).reshape(-1, 2)
    torch.testing.assert_close(places, expected.expand(2, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, size**2))


def test_a_window_sees_what_the_whole_picture_sees():
    camera, points = cameras(), torch.rand(2, 5, 3) - 0.5
    middle, half = torch.tensor([[0.1, -0.2], [0.0, 0.3]]), torch.tensor([[0.4], [0.6]])
    whole = camera.project(camera.local(points))
    cut = camera.window(middle, half)
    torch.testing.assert_close(cut.project(cut.local(points)), (whole - middle[:, None]) / half[:, None])


def test_framing_keeps_colours_at_their_points_whatever_the_photo_measures():
    """A coloured square on a photo that is no square lands where its camera projects it, large photos included."""
    for factor in (1, 7):
        height, width = 60 * factor, 40 * factor
        picture, mask = torch.zeros(1, 3, height, width), torch.zeros(1, 1, height, width)
        box = (slice(10 * factor, 34 * factor), slice(20 * factor, 30 * factor))
        picture[0, :, box[0], box[1]] = torch.tensor([0.9, 0.2, 0.4])[:, None, None]
        mask[0, :, box[0], box[1]] = 1
        intrinsics = torch.tensor([[50.0, 50.0, 20.0, 30.0]]) * factor
        pose = look_at_origin(torch.tensor([[0.0, -2.0, 0.0]]))
        framed, inside, camera = frame_pictures(picture, mask, from_pinhole(pose, intrinsics, width, height), 32, 0.75)
        rows, columns = torch.nonzero(inside[0, 0])[:, 0], torch.nonzero(inside[0, 0])[:, 1]
        assert abs(int(rows.max() - rows.min()) + 1 - 24) <= 1 and abs(int(columns.max() - columns.min()) + 1 - 10) <= 1
        torch.testing.assert_close(framed[0, :, 16, 16], torch.tensor([0.9, 0.2, 0.4]), atol=0.01, rtol=0)
        # The middle of the box is at pixel (25, 22) of 60 x 40: 5 to the right of and 8 above the optical axis.
        point = torch.tensor([[[5 / 50 * 2.0, 0.0, 8 / 50 * 2.0]]])
        place = camera.project(camera.local(point))[0, 0]
        assert math.hypot(*place.tolist()) < 0.02
