"""Figures: from a figure's YAML over its runs to one tidy table and a picture.

    conf/figure/<paper>/<name>.yaml
      runs.py        expands its grids of overrides into runs and makes the missing ones
      subjects/      one module per subject: its measurement (run -> rows) and its drawing (table -> picture)
      table.py       labels, checks and stacks the rows into one CSV; a failed run is a row with its reason
      provenance.py  records the origin of the table
      build.py       carries out all of it
      redraw.py      draws a committed table again, without training and without loading torch
      compare.py     compares the methods of a figure of curves in numbers

Shared by drawings: style.py (appearance), panels.py (one panel of curves) and scales.py (axes that panels share, marks
on curves). Shared by measurements: rebuilt.py (task and model of a run), weight_space.py (vectors and changes of
basis), unchanged_outputs.py (channels and outputs).
"""
