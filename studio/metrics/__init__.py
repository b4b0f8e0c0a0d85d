"""Measures of restored pictures and faces; each says its range."""

from studio.metrics.artifacts import blockiness, edge_contrast, overshoot, weave
from studio.metrics.faces import landmark_error
from studio.metrics.image import mean_lab_difference, psnr, sharpness, ssim
from studio.metrics.irises import iris_colours, iris_error, iris_mismatch
from studio.metrics.niqe import niqe

__all__ = [
    "blockiness",
    "edge_contrast",
    "iris_colours",
    "iris_error",
    "iris_mismatch",
    "landmark_error",
    "mean_lab_difference",
    "niqe",
    "overshoot",
    "psnr",
    "sharpness",
    "ssim",
    "weave",
]
