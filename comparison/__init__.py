"""What compare.py alone needs: the runs' processes, and the tables and the plot of their results."""
