"""Measures that all places share, in world px."""

from __future__ import annotations

W = 128.0  # width and height of the world
DEPTH_PX = 9.0  # how far behind the line on which bodies stand the wall begins
