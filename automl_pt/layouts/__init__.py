"""What people have on disk: class folders, archives, tables, lists of files."""
