"""Panoptic segmentation of street scenes: Seamless Scene Segmentation with PointRend."""

__version__ = "0.1.0"
