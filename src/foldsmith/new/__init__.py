"""Create a project: inspect images and tables, propose settings, write the files."""
