"""The gateway: one photo in, the emotions of every face out."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels report to Microsoft unless this is set before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
