"""What every teleport method shares: ascent, objectives, events, reports, the transaction."""
