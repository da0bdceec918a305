"""Panoptic segmentation of street scenes: Seamless Scene Segmentation with PointRend in both branches."""

__version__ = "0.1.0"
