"""What Timetracer costs and what it saves, as ratios that one run measures side by side."""
