"""``Balance``: the positive factors at which a criterion on the parameters alone is smallest."""
