"""What compare.py needs: runs, tables and plots of their results; and lists over several runs."""
