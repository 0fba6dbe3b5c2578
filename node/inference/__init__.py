"""The seam to the model: views in, `Prediction` out. Two backends: OpenVINO in this process, Triton over gRPC."""
