"""Parts of scripts/gpu_report.py."""
