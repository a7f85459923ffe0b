"""The composition root: settings in, a serving process out. Imports everything but the command line."""
