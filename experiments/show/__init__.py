"""Any runs side by side: what differs in their settings, their curves and their teleports, as pictures."""
