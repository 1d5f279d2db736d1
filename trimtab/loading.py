"""Loading: the files that the settings name. Each raises BadSettings that names the setting."""

from __future__ import annotations

from pathlib import Path

from compressor.calibration import Calibration, shipped_calibration
from compressor.fusion import Fusion, shipped_fusion
from routing.overlay import Overlay, overlay_with
from trimtab.errors import BadSettings
from trimtab.settings import Settings


def fusion_of(settings: Settings) -> Fusion:
    """The ranking's weights: the settings' own, else the shipped ones."""
    if settings.ranker is None:
        return shipped_fusion()
    try:
        return Fusion.load(Path(settings.ranker))
    except (OSError, ValueError, KeyError) as error:
        raise BadSettings(f"ranker: {error}") from None


def calibration_of(settings: Settings) -> Calibration | None:
    """The settings' own, else the shipped one, which is about the shipped weights: nothing is known of others."""
    try:
        if settings.calibration is not None:
            return Calibration.load(settings.calibration)
        return None if settings.ranker is not None else shipped_calibration()
    except ValueError as error:
        raise BadSettings(f"calibration: {error}") from None


def overlay_of(settings: Settings) -> Overlay:
    """What corrects the price list: ours, and the settings' own before it."""
    try:
        return overlay_with(settings.price_overlay)
    except ValueError as error:
        raise BadSettings(f"price_overlay: {error}") from None
