"""The layouts that datasets have on disk: class folders, archives, tables, lists of files."""
