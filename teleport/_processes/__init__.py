"""The processes of a data-parallel teleport: what they average, gather and agree on."""
