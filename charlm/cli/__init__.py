"""The command line: printing, progress bars and options live here and nowhere else."""
