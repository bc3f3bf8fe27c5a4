"""Grippers and anything else that can be pointed at: detect, segment, track, depth, lift, each step as configured."""
