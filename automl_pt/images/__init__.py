"""From an image file to pixels: open, convert, resize, always by the same rule."""
