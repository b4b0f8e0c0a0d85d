"""A synthetic head: no photograph, but its points lie where a face's would."""

from __future__ import annotations

import numpy as np
import torch

from studio.faces import templates
from studio.faces.faces import Faces
from studio.faces.pose import pose_from_mesh


def rotation(yaw=0.0, pitch=0.0, roll=0.0):
    """R_z(roll) · R_y(yaw) · R_x(-pitch), degrees."""
    a, b, c = np.radians([-pitch, yaw, roll])
    x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    return np.array(z) @ np.array(y) @ np.array(x)


def head(centre=(100.0, 100.0), height=80.0, yaw=0.0, pitch=0.0, roll=0.0):
    """One mesh (1,468,3): an ellipsoid's front with eyes, mouth, nose, forehead and chin in place."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, templates.POINTS), np.sqrt(rng.uniform(0, 0.95, templates.POINTS))
    points = np.stack([0.4 * radius * np.cos(angle), 0.5 * radius * np.sin(angle), -0.3 * np.sqrt(1 - radius**2)], 1)
    turn = np.linspace(0, 2 * np.pi, len(templates.FACE_OVAL), endpoint=False) - np.pi / 2
    points[list(templates.FACE_OVAL)] = np.stack([0.4 * np.cos(turn), 0.5 * np.sin(turn), 0 * turn], 1)
    points[list(templates.RIGHT_EYE_CORNERS)] = (-0.24, -0.1, -0.22), (-0.1, -0.1, -0.22)
    points[list(templates.LEFT_EYE_CORNERS)] = (0.24, -0.1, -0.22), (0.1, -0.1, -0.22)
    points[list(templates.MOUTH_CORNERS)] = (-0.13, 0.28, -0.22), (0.13, 0.28, -0.22)
    points[templates.NOSE_BASE] = (0, 0.15, -0.4)
    mesh = height * points @ rotation(yaw, pitch, roll).T
    mesh[:, :2] += centre
    return mesh[None].astype(np.float32)


def faces_of(*meshes):
    mesh = np.concatenate(meshes)
    boxes = np.concatenate([mesh[..., :2].min(1), mesh[..., :2].max(1)], 1)
    scores = np.linspace(0.9, 0.6, len(mesh))
    return Faces(boxes=boxes, scores=scores, mesh=mesh, mesh_scores=np.ones(len(mesh)), pose=pose_from_mesh(mesh))


def smooth_image(height, width):
    """(3,H,W) in [0,1], waves about 60 px long."""
    y, x = torch.meshgrid(torch.arange(height) / 10.0, torch.arange(width) / 10.0, indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin(x + y / 2), 0.5 + 0.4 * torch.cos(x / 3 - y), 0.5 + 0.4 * torch.sin(y)])
