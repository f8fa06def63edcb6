"""Content of reports: selections, tables and texts, results.json, model cards. Formats are plugins."""
