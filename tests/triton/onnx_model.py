"""Runs a model's ONNX file in Triton's Python backend. It starts much sooner than `torchscript_model.py`.

Tensors are passed by DLPack in both directions.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from onnxruntime import InferenceSession, OrtValue, SessionOptions


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.inputs = [part["name"] for part in config["input"]]
        self.outputs = [part["name"] for part in config["output"]]
        # A test may make the model slow.
        self.delay_s = float(config["parameters"].get("delay_s", {}).get("string_value", 0))
        options = SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        folder = Path(args["model_repository"]) / args["model_version"]
        self.session = InferenceSession(folder / "model.onnx", options)

    def execute(self, requests: list[Any]) -> list[Any]:
        time.sleep(self.delay_s)
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        # With numpy 2, `as_numpy` returns an empty array.
        tensors = {name: pb.get_input_tensor_by_name(request, name) for name in self.inputs}
        given = {name: OrtValue.ortvalue_from_numpy(np.from_dlpack(tensors[name])) for name in self.inputs}
        outputs = self.session.run_with_ort_values(self.outputs, given)
        named = zip(self.outputs, outputs, strict=True)
        return pb.InferenceResponse([tensor(name, value) for name, value in named])


def tensor(name: str, value: OrtValue) -> Any:
    # By DLPack, Triton refuses the strides of an empty tensor. With numpy 2, it copies no other array.
    if 0 in value.shape():
        return pb.Tensor(name, value.numpy())
    return pb.Tensor.from_dlpack(name, value)
