"""DSTFN has the published size, starts as its anchor where it has one, and takes what MARSTFN takes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from marstfn import weights
from marstfn.dstfn import CSA, DSTFN
from marstfn.model import Config, anchor, build, parameters

SMALL = Config(network="dstfn", pan=False, features=16, growth=8, layers=2, patch=24)


@pytest.mark.parametrize(("layers", "growth", "count"), [(6, 32, 1_693_190), (6, 64, 3_843_590), (5, 32, 1_426_950)])
def test_it_has_as_many_parameters_as_were_counted_in_the_re_published_network(layers, growth, count):
    assert parameters(build(Config(network="dstfn", layers=layers, growth=growth))) == count


def test_it_differs_from_its_sibling_only_by_name_for_whoever_loads_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(SMALL)
    kept = weights.save(tmp_path / "d.safetensors", model)
    again = build(kept.config)
    again.load_state_dict(kept.state)
    s2, landsat = torch.rand(2, 6, 24, 24), torch.rand(2, 6, 8, 8)
    assert isinstance(again, DSTFN)
    assert torch.equal(model(s2, landsat), again(s2, landsat))
    with pytest.raises(ValueError, match="without pan"):
        model(s2, landsat, torch.rand(2, 1, 16, 16))


def test_every_input_and_every_parameter_matters() -> None:
    torch.manual_seed(1)
    model = build(replace(SMALL, pan=True, se_ratio=2))
    inputs = [torch.rand(1, b, p, p, requires_grad=True) for b, p in ((6, 24), (6, 8), (1, 16))]
    model(*inputs).square().sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in inputs)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_anchored_it_begins_as_the_additive_baseline() -> None:
    model = build(replace(SMALL, anchor="additive", guide=True, context=True))
    s2, landsat = torch.rand(1, 6, 24, 24), torch.rand(1, 6, 8, 8)
    assert torch.equal(model(s2, landsat, None, torch.rand(1, 8, 24, 24)), anchor(s2, landsat))


def test_attention_by_channel_and_by_place_follows_its_formula() -> None:
    torch.manual_seed(2)
    block = CSA(16, 4)
    x = torch.randn(1, 16, 5, 5)
    down, _, up, _ = block.mean
    mean = x.mean((2, 3))[0]
    gate = torch.sigmoid(up.weight[:, :, 0, 0] @ torch.relu(down.weight[:, :, 0, 0] @ mean))
    assert torch.allclose(block.mean(x.mean((2, 3), keepdim=True))[0, :, 0, 0], gate, atol=1e-6)
    assert block(x).shape == x.shape
    assert (block(x) >= 0).all()
