"""The seam to the model: views in, `Prediction` out. Two backends: OpenVINO in this process, Triton over gRPC."""

import sys

# Importing openvino 2026.4 sends an event to its maker over the network and leaves an identifier in the home folder.
# Where this package cannot be imported it uses a stub of its own that does neither.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
