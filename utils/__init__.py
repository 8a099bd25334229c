"""What every script needs from its surroundings, each file one thing.

Imported before MindSpore, which reads its log level when it is loaded: its warnings speak to its developers.
"""
import os

os.environ.setdefault("GLOG_v", "3")  # errors only
