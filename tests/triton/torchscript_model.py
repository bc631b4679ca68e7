"""Runs the file of a TorchScript model in Triton's Python backend: no wheel has Triton's PyTorch backend.

Tensors are passed by DLPack in both directions. Requests that Triton passes together run as one batch.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb
from torch.utils.dlpack import from_dlpack


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.inputs = [part["name"] for part in config["input"]]
        self.outputs = [part["name"] for part in config["output"]]
        self.batched = int(config["max_batch_size"]) > 0
        # A test may make the model slow.
        self.delay_s = float(config["parameters"].get("delay_s", {}).get("string_value", 0))
        torch.set_num_threads(1)
        torch.jit.set_fusion_strategy([("DYNAMIC", 2)])
        folder = Path(args["model_repository"]) / args["model_version"]
        self.module = torch.jit.load(str(folder / "model.pt")).eval()  # type: ignore[no-untyped-call]

    def execute(self, requests: list[Any]) -> list[Any]:
        if self.batched:
            return self.run_batch(requests)
        return [self.answer(self.run(self.read(request))) for request in requests]

    def run_batch(self, requests: list[Any]) -> list[Any]:
        inputs = [self.read(request) for request in requests]
        counts = [len(tensors[0]) for tensors in inputs]
        joined = [torch.cat(parts) for parts in zip(*inputs, strict=True)]
        outputs = [output.split(counts) for output in self.run(joined)]
        return [self.answer(parts) for parts in zip(*outputs, strict=True)]

    def read(self, request: Any) -> list[torch.Tensor]:
        # With numpy 2, `as_numpy` returns an empty array.
        tensors = (pb.get_input_tensor_by_name(request, name) for name in self.inputs)
        return [from_dlpack(tensor.to_dlpack()) for tensor in tensors]

    def run(self, tensors: list[torch.Tensor]) -> Any:
        time.sleep(self.delay_s)
        with torch.inference_mode():
            return self.module(*tensors)

    def answer(self, outputs: Any) -> Any:
        named = zip(self.outputs, outputs, strict=True)
        return pb.InferenceResponse([pb.Tensor.from_dlpack(name, part.contiguous()) for name, part in named])
