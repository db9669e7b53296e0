"""What is registered out of the box, through the same hooks as anyone else's."""
