"""The log on disk or in memory, behind one small port."""
