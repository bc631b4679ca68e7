"""The two files of a model, from the same scripted network: TorchScript for Triton, and ONNX."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.onnx import OnnxExporterError, symbolic_helper
from torch.onnx.utils import register_custom_op_symbolic

from service.core.manifest import ONNX, TORCHSCRIPT, ModelFile
from training.models.boxes import Suppression, suppress

# The first opset whose Resize has antialiasing.
OPSET = 18

Files = dict[ModelFile, bytes]


@dataclass(frozen=True)
class Interface:
    """inputs: an example of each input by name, in order; varying: names of the dynamic dimensions."""

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    varying: dict[str, dict[int, str]]


def make_files(name: str, module: nn.Module, interface: Interface) -> Files:
    """Both files of a module in eval mode.

    Raises `RuntimeError` when the module cannot be written as ONNX, or when two exports differ.
    """
    # Each export has a process of its own, because names of classes depend on what was scripted before. The
    # module is pickled here, because a pool would move the caller's weights to shared memory.
    pickled = pickle.dumps((module, interface))
    fresh = get_context("forkserver")
    fresh.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(2, fresh, max_tasks_per_child=1) as processes:
        files, again = processes.map(_made, (pickled, pickled))
    if again != files:
        raise RuntimeError(f"{name} cannot be reproduced: two exports of it differ")
    return files


def _made(pickled: bytes) -> Files:
    module, interface = pickle.loads(pickled)
    return {TORCHSCRIPT: torchscript_file(module), ONNX: onnx_file(module, interface)}


def digests(files: Files) -> dict[ModelFile, str]:
    """SHA-256 of each file, as manifests hold them."""
    return {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}


def torchscript_file(module: nn.Module) -> bytes:
    scripted = script(module)
    buffer = io.BytesIO()
    with without_jit_warnings():
        torch.jit.save(scripted, buffer)
    return reproducible(buffer.getvalue())


def onnx_file(module: nn.Module, interface: Interface) -> bytes:
    """Raises `RuntimeError` when the module uses an operator that ONNX lacks."""
    scripted = script(_with_operators(copy.deepcopy(module)))
    for operator, symbolic in _SYMBOLICS.items():
        register_custom_op_symbolic(operator, symbolic, OPSET)
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every node of unknown shape
            torch.onnx.export(
                scripted,
                tuple(interface.inputs.values()),
                buffer,  # type: ignore[arg-type]  # only the newer exporter needs a path
                dynamo=False,  # the newer exporter takes no script, and unrolls loops
                opset_version=OPSET,
                input_names=list(interface.inputs),
                output_names=list(interface.outputs),
                dynamic_axes=interface.varying,
            )
    except OnnxExporterError as error:
        raise RuntimeError(f"the network cannot be written as ONNX: {str(error).splitlines()[0]}") from error
    return buffer.getvalue()


class OnnxSuppression(nn.Module):
    """`Suppression` by ONNX's own operator, in a tenth of the time of a loop."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        kept: Tensor = torch.ops.expressnet.suppress(boxes, scores, self.limit)
        return kept


def _with_operators(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, Suppression):
            setattr(module, name, OnnxSuppression(child.limit))
        else:
            _with_operators(child)
    return module


torch.library.define("expressnet::suppress", "(Tensor boxes, Tensor scores, float limit) -> Tensor")
torch.library.impl("expressnet::suppress", "CPU", suppress)


def _suppress(g: Any, boxes: Any, scores: Any, limit: Any) -> Any:
    """For one class of one image. The third column of ONNX's answer [K,3] has the indices of boxes."""
    first, both = (g.op("Constant", value_t=torch.tensor(axes)) for axes in ([0], [0, 1]))
    unlimited = g.op("Constant", value_t=torch.tensor([torch.iinfo(torch.int32).max]))
    kept = g.op(
        "NonMaxSuppression",
        g.op("Unsqueeze", boxes, first),
        g.op("Unsqueeze", scores, both),
        unlimited,
        g.op("Cast", limit, to_i=symbolic_helper.cast_pytorch_to_onnx["Float"]),
    )
    return g.op("Gather", kept, g.op("Constant", value_t=torch.tensor(2)), axis_i=1)


def _argsort(g: Any, x: Any, stable: Any, dim: Any, descending: Any) -> Any:
    """For one dimension, descending. TopK keeps the order of equal values, as a stable sort does."""
    count = g.op("Reshape", g.op("Size", x), g.op("Constant", value_t=torch.tensor([1])))
    _, order = g.op("TopK", x, count, axis_i=0, largest_i=1, sorted_i=1, outputs=2)
    return order


def _equal(g: Any, a: Any, b: Any) -> Any:
    kinds = symbolic_helper.cast_pytorch_to_onnx
    same = g.op("Cast", g.op("Equal", a, b), to_i=kinds["Int"])
    return g.op("Cast", g.op("ReduceMin", same, keepdims_i=0), to_i=kinds["Bool"])


def _resize(antialias: bool, g: Any, x: Any, size: Any, *_: Any) -> Any:
    one = g.op("Constant", value_t=torch.tensor([1]))
    whole = symbolic_helper.cast_pytorch_to_onnx["Long"]
    sides = [
        g.op("Cast", g.op("Reshape", side, one), to_i=whole) for side in symbolic_helper._unpack_list(size)
    ]
    ends = (g.op("Constant", value_t=torch.tensor([end])) for end in (0, 2))
    sizes = g.op("Concat", g.op("Slice", g.op("Shape", x), *ends), *sides, axis_i=0)
    empty = g.op("Constant", value_t=torch.empty(0))
    options = {
        "mode_s": "linear",
        "antialias_i": int(antialias),
        "coordinate_transformation_mode_s": "half_pixel",
    }
    return g.op("Resize", x, empty, empty, sizes, **options)


# Operators that the exporter lacks.
_SYMBOLICS: dict[str, Callable[..., Any]] = {
    "expressnet::suppress": _suppress,
    "aten::argsort": _argsort,
    "aten::equal": _equal,
    "aten::_upsample_bilinear2d_aa": partial(_resize, True),
    "aten::upsample_bilinear2d": partial(_resize, False),
}


class Pair:
    """The two files of a model, loaded as in service, to compare their answers."""

    def __init__(self, files: Files) -> None:
        with without_jit_warnings():
            self.torchscript = torch.jit.load(io.BytesIO(files[TORCHSCRIPT])).eval()  # type: ignore[no-untyped-call]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(files[ONNX], options, ["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def answers(self, *inputs: Tensor) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """(answers of TorchScript, answers of ONNX Runtime)."""
        with torch.inference_mode():
            expected = [output.numpy() for output in self.torchscript(*inputs)]
        given = {name: value.numpy() for name, value in zip(self._names, inputs, strict=True)}
        return expected, self._session.run(None, given)


def reproducible(archive: bytes) -> bytes:
    """Remove what differs between exports of a TorchScript file, so that equal models are equal files.

    Debug records, which name paths of the exporting machine, and a random id are removed. The constants of a
    class are sorted, because torch writes them in the order of a set.
    """
    clean = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(clean, "w") as target:
        for name in source.namelist():
            if name.endswith((".debug_pkl", "serialization_id")):
                continue
            content = source.read(name)
            if name.endswith(".py"):
                content = CONSTANTS.sub(lambda lines: b"".join(sorted(lines[0].splitlines(True))), content)
            target.writestr(zipfile.ZipInfo(name), content)
    return clean.getvalue()


CONSTANTS = re.compile(rb"(?m)(?:^ +\w+ : Final\[.*\n)+")


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """TorchScript of a module in eval mode.

    It is not frozen: freezing makes weights constants that `.to(device)` does not move, and gains nothing.
    """
    with without_jit_warnings():
        scripted = torch.jit.script(module.eval())
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


@contextmanager
def without_jit_warnings() -> Iterator[None]:
    """torch.jit is deprecated, but Triton's pytorch_libtorch platform loads nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=DeprecationWarning)
        yield
