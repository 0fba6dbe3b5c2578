"""Before any test module imports openvino itself: node.inference keeps it from reporting over the network."""

import node.inference

assert node.inference
