"""From a figure's YAML over its runs to one tidy table and a picture.

    conf/figure/<paper>/<name>.yaml
      runs.py        its grids of overrides -> runs, those that are missing are made
      measure/       a run's folder -> rows
      table.py       rows, labelled and checked -> one CSV; runs that failed are rows with their reason
      provenance.py  where the table comes from
      draw/          the CSV -> a picture; never trains, needs no torch
      build.py       all of it

Importing this package is cheap; ``draw`` imports matplotlib, ``measure`` imports torch.
"""
