"""Measures of restored pictures and faces; each says its range."""

from studio.metrics.faces import landmark_error
from studio.metrics.image import mean_lab_difference, psnr, sharpness, ssim
from studio.metrics.niqe import niqe

__all__ = ["landmark_error", "mean_lab_difference", "niqe", "psnr", "sharpness", "ssim"]
