"""The report of a run: one self-contained HTML page from the sections that the stages wrote."""
