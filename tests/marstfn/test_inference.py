"""The inference form computes what the network learned: weight for weight, in every form of its blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marstfn.attention import BLOCK, padded, position
from marstfn.convolution import FORMS, Place, dense
from marstfn.inference import Inference, enlarged, supports, variant
from marstfn.model import MARSTFN, RDB, Config, DANet, Network, PositionAttention, build, enlarge
from marstfn.precision import samples
from marstfn.weights import SHIPPED, load

EXACT = 120
"""dB of PSNR (maximum 1) against the network itself, in float32."""
HALF = 5e-4
"""Reflectance, RMSE of half precision."""


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def opened(config: Config, seed: int = 0) -> Network:
    """A network with fresh parameters whose attention has its say: at initialisation it has none."""
    torch.manual_seed(seed)
    model = MARSTFN(config).eval()
    for module in model.modules():
        if isinstance(module, DANet):
            module.gamma_position.fill_(0.5)
            module.gamma_channel.fill_(0.5)
    for name, parameter in model.named_parameters():
        if "bias" in name or name.startswith(("out", "doubt")):
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def patches(config: Config, n: int = 2) -> list[torch.Tensor | None]:
    return [None if a is None else torch.from_numpy(a) for a in samples(config, n)]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a.double() - b.double()).square().mean()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_predict_the_same(name: str, form: str) -> None:
    weights = load(name)
    assert weights.config.patch == 60
    model = build(weights.config).eval()
    model.load_state_dict(weights.state)
    seen = patches(weights.config)
    truth, made = model(*seen), Inference(model, form=form)(*seen)
    assert made.shape == truth.shape == (2, 7, 60, 60)
    assert psnr(made, truth) > EXACT
    assert psnr(made[:, 6], truth[:, 6]) > EXACT


@pytest.mark.parametrize("growth", [32, 64])
def test_fresh_weights_predict_the_same_at_any_growth(growth: int) -> None:
    model = opened(Config(growth=growth))
    seen = patches(model.config, 1)
    truth = model(*seen)
    assert truth.std() > 0.1
    assert psnr(Inference(model)(*seen), truth) > EXACT


SMALL = {"features": 16, "growth": 8, "layers": 3, "blocks": 2, "patch": 24}
OPTIONS = {
    "printed": {},
    "no pan": {"pan": False},
    "residual on the additive baseline": {"anchor": "additive", "centre": 0.15, "spread": 0.15},
    "guided": {"anchor": "additive", "guide": True, "centre": 0.15, "spread": 0.15},
    "context": {"context": True},
    "uncertainty without context": {"uncertainty": True, "centre": 0.1, "spread": 0.2},
    "guided, uncertainty": {"anchor": "additive", "guide": True, "uncertainty": True},
    "all": {"anchor": "additive", "guide": True, "context": True, "uncertainty": True, "pan": False, "spread": 0.3},
    "one block, one layer": {"blocks": 1, "layers": 1},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_the_form_is_followed(name: str, form: str) -> None:
    model = opened(Config(**{**SMALL, **OPTIONS[name]}))
    seen = patches(model.config)
    untouched = [None if t is None else t.clone() for t in seen]
    truth, made = model(*seen), Inference(model, form=form)(*seen)
    assert torch.allclose(made, truth, atol=1e-5)
    # activations are in place, but never in what was given
    assert all(a is None or torch.equal(a, b) for a, b in zip(seen, untouched, strict=True))


@pytest.mark.parametrize("config", [Config.arnet(), Config.mrnet(), Config.manet(), Config(skip_merge="concat")])
def test_ablations_have_no_inference_form_and_say_so(config: Config) -> None:
    assert not supports(config)
    assert variant(config) == "as trained" != variant(Config())
    with pytest.raises(ValueError, match="no inference form"):
        Inference(MARSTFN(config))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_and_keeps_the_anchor_whole(dtype: torch.dtype) -> None:
    weights = load("marstfn-nopan")
    model = build(weights.config).eval()
    model.load_state_dict(weights.state)
    seen = patches(weights.config, 1)
    truth, made = model(*seen), Inference(model, dtype=dtype)(*seen)
    assert made.dtype == torch.float32
    assert 0 < (made - truth)[:, :6].square().mean().sqrt() < HALF
    # with nothing learned the output is the anchor, which half precision would round
    fresh = build(weights.config).eval()
    assert torch.allclose(Inference(fresh, dtype=dtype)(*seen)[:, :6], fresh(*seen)[:, :6], atol=1e-7)


def test_energies_of_channel_attention_do_not_overflow_in_float16() -> None:
    model = opened(Config(**{**SMALL, "patch": 60}))
    seen = [None if t is None else t * 80 for t in patches(model.config, 1)]
    features = torch.relu(model.coarse.dilated[0](seen[1])).flatten(2)
    assert (features @ features.transpose(1, 2)).max() > torch.finfo(torch.float16).max
    assert torch.isfinite(Inference(model, dtype=torch.float16)(*seen)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2 * BLOCK + 5), st.integers(1, 9), st.integers(9, 24), st.integers(0, 99))
def test_attention_adds_the_definition(n: int, pixels: int, narrow: int, wide: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    q, k, v, out = (torch.randn(n, pixels, c, generator=g) for c in (narrow, narrow, wide, wide))
    truth = out + torch.softmax(q @ k.transpose(1, 2), -1) @ v
    assert torch.allclose(out + padded(q, k, v), truth, atol=1e-5)
    position(q, k, v, out)
    assert torch.allclose(out, truth, atol=1e-5)


def test_attention_equals_danets() -> None:
    block = PositionAttention(64)
    x = torch.randn(1, 64, 20, 20)
    q, k, v = (f(x).flatten(2).transpose(1, 2) for f in (block.query, block.key, block.value))
    out = torch.zeros_like(v)
    position(q, k, v, out)
    assert torch.allclose(out.transpose(1, 2).reshape(x.shape), block.naive(x), atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("offset", [True, False])
def test_dense_blocks_equal_the_joined_one(form: str, offset: bool) -> None:
    block = RDB(16, 8, 4, bias=offset)
    x = torch.randn(2, 16, 12, 18)
    made = dense(block, Place(torch.device("cpu"), torch.float32), form)
    room = made.room(2, 12, 18)
    room[..., :16] = x.permute(0, 2, 3, 1)
    assert torch.allclose(made(room).permute(0, 3, 1, 2), block(x), atol=1e-5)


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="stacked, summed"):
        dense(RDB(16, 8, 2), Place(torch.device("cpu"), torch.float32), "joined")


@pytest.mark.parametrize(("few", "many"), [(8, 24), (16, 24), (20, 60)])
def test_enlarging_by_products_is_bicubic(few: int, many: int) -> None:
    x = torch.randn(2, 5, few, few)
    made = enlarged(x.permute(0, 2, 3, 1).contiguous(), many, many).permute(0, 3, 1, 2)
    assert torch.allclose(made, enlarge(x, (many, many)), atol=1e-5)


def test_patches_do_not_see_one_another() -> None:
    model = opened(Config(**SMALL))
    fused, seen = Inference(model), patches(model.config, 4)
    together = fused(*seen)
    swapped = [None if t is None else t.flip(0) for t in seen]
    assert np.array_equal(fused(*swapped).flip(0).numpy(), together.numpy())
