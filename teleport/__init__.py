"""Teleportation: move a network along a level set of its loss."""
from teleport.report import BatchReport, LayerReport, StepRecord, TeleportReport
from teleport.schedule import Schedule

__all__ = ["BatchReport", "LayerReport", "Schedule", "StepRecord", "TeleportReport"]
