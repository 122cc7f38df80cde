"""Reports: what operators ask again and again, answered on screen, as CSV and by schedule. One file a report."""
