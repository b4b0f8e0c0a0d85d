"""Damage for training and measuring: `ops` what happens to a photo, `recipes` how much of it."""

from studio.degradations.recipes import RECIPES, Recipe, degrade

__all__ = ["RECIPES", "Recipe", "degrade"]
