from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgetl.base.errors import CompressionError
from edgetl.base.storage import sha256_file
from edgetl.compress.export import check_parity, export_onnx, run_onnx
from edgetl.compress.graph import MODULE, before_weights, load
from tests.compress.images import SIZE, pictures
from tests.compress.models import CLASSES, PREPROCESS, Small, small_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_model(), PREPROCESS, tmp_path_factory.mktemp("export") / "model.onnx")


def test_graph_takes_uint8_nhwc_of_any_batch_and_gives_logits(exported: Path) -> None:
    graph = load(exported).graph
    (image,), (logits,) = graph.input, graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value or None for d in image.type.tensor_type.shape.dim] == [None, SIZE, SIZE, 3]
    assert run_onnx(exported, {"image": pictures(3)})["logits"].shape == (3, CLASSES)


def test_preprocessing_comes_first_in_the_order_that_tensorrt_takes(exported: Path) -> None:
    model = load(exported)
    names = before_weights(model)
    kinds = [node.op_type for node in model.graph.node if node.name in names]
    assert kinds == ["Cast", "Transpose", "Sub", "Div"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_is_one_operator_whatever_the_memory_layout(layout: torch.memory_format, tmp_path: Path) -> None:
    model = small_model().to(memory_format=layout)
    graph = load(export_onnx(model, PREPROCESS, tmp_path / "model.onnx")).graph
    assert "Gather" not in {node.op_type for node in graph.node}


def test_parity_with_torch(exported: Path) -> None:
    parity = check_parity(exported, small_model(), {"image": pictures(20)})
    assert parity.n == 20
    assert parity.max_abs <= 1e-3 * parity.logit_range
    assert parity.agreement == 1.0
    assert parity.logit_range > 0.5


def test_parity_fails_for_another_model(exported: Path) -> None:
    with pytest.raises(CompressionError, match="differs from torch by"):
        check_parity(exported, small_model(seed=1), {"image": pictures(4)})


def test_parity_fails_for_nan(exported: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(CompressionError, match="differs from torch"):
        check_parity(exported, model, {"image": pictures(4)})


def test_fixed_batch(tmp_path: Path) -> None:
    model = small_model()
    path = export_onnx(model, PREPROCESS, tmp_path / "model.onnx", batch=4)
    assert load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    # Seven images through a batch of four: the last batch is filled up and cut again.
    assert check_parity(path, model, {"image": pictures(7)}).n == 7


def test_nodes_name_their_torch_modules(exported: Path) -> None:
    model = load(exported)
    modules = {name for name, _ in Small().named_modules()}
    weighted = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    for node in weighted:
        (module,) = [entry.value for entry in node.metadata_props if entry.key == MODULE]
        assert module in modules
        assert node.name == f"{module}/{node.op_type}"
    assert {node.name for node in weighted} >= {"body.0/Conv", "body.4.layers.3/Conv", "head/Gemm"}
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_another_process_exports_the_same_bytes_and_names_no_path(exported: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from edgetl.compress.export import export_onnx\n"
        "from tests.compress.models import PREPROCESS, small_model\n"
        "export_onnx(small_model(), PREPROCESS, Path(sys.argv[1]))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "again.onnx")],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert sha256_file(tmp_path / "again.onnx") == sha256_file(exported)
    data = exported.read_bytes()
    assert b".py" not in data
    assert str(root).encode() not in data


@pytest.mark.parametrize("opset", [12, 17, 99])
def test_unsupported_opset(opset: int, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=f"opset {opset} is not supported: use 18 to 23"):
        export_onnx(small_model(), PREPROCESS, tmp_path / "model.onnx", opset=opset)


def test_highest_opset(tmp_path: Path) -> None:
    model = small_model()
    path = export_onnx(model, PREPROCESS, tmp_path / "model.onnx", opset=23)
    assert check_parity(path, model, {"image": pictures(2)}).agreement == 1.0


def test_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="training mode"):
        export_onnx(small_model().train(), PREPROCESS, tmp_path / "model.onnx")


class Permuting(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.permute(0, 3, 1, 2).to(torch.float32).mean((2, 3))


def test_a_cast_that_is_not_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="read by Transpose, not by a Cast"):
        export_onnx(Permuting().eval(), PREPROCESS, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


class Branching(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.to(torch.float32).mean((1, 2))
        return x if bool(x.sum() > 0) else -x


def test_what_cannot_be_exported_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="Branching cannot be exported to ONNX") as caught:
        export_onnx(Branching().eval(), PREPROCESS, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_damaged_file(tmp_path: Path, exported: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported.read_bytes()[: exported.stat().st_size // 2])
    with pytest.raises(CompressionError, match="no valid ONNX model"):
        load(broken)
    with pytest.raises(CompressionError, match="cannot read"):
        load(tmp_path / "absent.onnx")


def test_no_image_to_compare_on(exported: Path) -> None:
    with pytest.raises(CompressionError, match="no sample"):
        check_parity(exported, small_model(), {"image": np.empty((0, SIZE, SIZE, 3), np.uint8)})
