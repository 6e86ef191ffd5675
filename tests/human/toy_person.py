"""A person made of noise within a ring of cameras: enough for networks that nobody has trained."""

from dataclasses import replace

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from dataparsers._people import people_outputs
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.human.subject import SourceViews, Subject, SubjectStore
from nerfstudio_ext.procedural.rigs import rig_poses


def toy_subject(views: int = 3, size: int = 32, keypoints: int = 6, seed: int = 0) -> Subject:
    """Smooth random pictures, everything inside the masks but a border, keypoints within half a metre of the origin."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(views, 3, 6, 6, generator=generator)
    rgb = torch.nn.functional.interpolate(small, (size, size), mode="bilinear").permute(0, 2, 3, 1)
    mask = torch.zeros(views, size, size, dtype=torch.bool)
    mask[:, 2:-2, 2:-2] = True
    return Subject(
        name="toy",
        rgb=(rgb * 255 * mask[..., None]).to(torch.uint8),
        mask=mask,
        poses=rig_poses("ring", views, 2.8),
        intrinsics=torch.tensor([1.2 * size, 1.2 * size, size / 2, size / 2]).expand(views, 4),
        keypoints=0.3 * torch.randn(keypoints, 3, generator=generator).clamp(-1.5, 1.5),
    )


def photographed(views: int = 4, size: int = 64, seed: int = 0) -> Subject:
    """The same with keypoints that reach as far as the mask, as those of a person in photographs do."""
    subject = toy_subject(views, size, seed=seed)
    low, high = subject.keypoints.amin(0), subject.keypoints.amax(0)
    return replace(subject, keypoints=1.3 * (subject.keypoints - (low + high) / 2) / (high - low))


def toy_views(views: int = 3, **options) -> SourceViews:
    return SourceViews.of(toy_subject(views, **options), range(views), torch.device("cpu"))


def moved(views: SourceViews, axis_angle=(0.3, -1.1, 0.7), shift=(2.0, -1.0, 0.5)):
    """The same person and cameras after one rigid motion of the world, and that motion: rotation and shift."""
    rotation, shift = rotation_matrix(torch.tensor(axis_angle)), torch.tensor(shift)
    turned = views.world_to_camera[..., :3] @ rotation.T
    shifts = views.world_to_camera[..., 3] - turned @ shift
    after = SourceViews(
        views.rgb,
        views.mask,
        torch.cat([turned, shifts[..., None]], dim=-1),
        views.intrinsics,
        views.keypoints @ rotation.T + shift,
    )
    return after, rotation, shift


def chosen(views: SourceViews, order) -> SourceViews:
    """Some of the views, in this order."""
    order = list(order)
    return SourceViews(
        views.rgb[order], views.mask[order], views.world_to_camera[order], views.intrinsics[order], views.keypoints
    )


class ToyStore(SubjectStore):
    """Several such people, who are made anew on every call."""

    def __init__(self, people: int = 3, views: int = 5, size: int = 32) -> None:
        self.people, self.views, self.size = people, views, size
        self.keypoint_names = tuple("abcdef")

    def __len__(self) -> int:
        return self.people

    def name(self, index: int) -> str:
        return f"toy_{index}"

    def cameras(self, index: int) -> Cameras:
        subject = self.subject(index)
        return Cameras(
            subject.poses,
            *subject.intrinsics[0].tolist(),
            self.size,
            self.size,
            camera_type=CameraType.PERSPECTIVE,
        )

    def subject(self, index: int) -> Subject:
        return toy_subject(self.views, self.size, seed=index)


def toy_outputs(store: SubjectStore, people, cameras=range(5)) -> DataparserOutputs:
    """Some people of a store as a dataparser gives them, reconstructed from views 0, 2 and 3."""
    views = [(index, camera) for index in people for camera in cameras]
    return people_outputs(store, views, dict.fromkeys(range(len(store)), (0, 2, 3)), shown=len(store) - 1)
