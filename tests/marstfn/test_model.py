"""The network: shapes, size, identities, gradients."""

import pytest
import torch
from torch import Tensor, nn

from marstfn.baselines import additive
from marstfn.model import (
    CBAM,
    MARSTFN,
    RDB,
    SE,
    ChannelAttention,
    Config,
    DANet,
    Multiscale,
    PositionAttention,
    build,
    parameters,
)

CONFIGS = {
    "paper": Config(),
    "no pan": Config(pan=False),
    "ARNet": Config.arnet(),
    "MRNet": Config.mrnet(),
    "MANet": Config.manet(),
    "concat": Config(skip_merge="concat"),
    "growth 64": Config(growth=64),
    "no DANet, no CBAM": Config(danet=False, cbam=False),
    "residual on the additive baseline": Config(anchor="additive", centre=0.15, spread=0.15),
    "guided": Config(anchor="additive", guide=True, centre=0.15, spread=0.15),
}


def inputs(pan: bool, n: int = 2, p: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    g = torch.Generator().manual_seed(seed)
    s2, landsat = torch.rand(n, 6, p, p, generator=g), torch.rand(n, 6, p // 3, p // 3, generator=g)
    return s2, landsat, torch.rand(n, 1, 2 * p // 3, 2 * p // 3, generator=g) if pan else None


def conv(i: int, o: int, k: int) -> int:
    return i * o * k * k + o


def expected(c: Config) -> int:
    """Parameters by the formulas of the blocks, written without looking at the modules."""
    f = c.features

    def branch(i: int) -> int:
        if not c.multiscale:
            return conv(i, f, 3)
        danet = 2 * conv(f, f // 8, 1) + conv(f, f, 1) + 2 if c.danet else 0
        return 2 * conv(i, f, 1) + 3 * (conv(i, f, 3) + danet) + conv(5 * f, f, 1)

    def gate(ratio: int) -> int:
        return conv(f, f // ratio, 1) + conv(f // ratio, f, 1)

    total = branch(c.bands) + (branch(1) if c.pan else 0) + conv(c.bands * (3 if c.guide else 1), f, 3)
    total += gate(c.se_ratio) if c.attention else 0
    total += conv(f * (3 if c.pan else 2), f, 1)
    dense = sum(conv(f + k * c.growth, c.growth, 3) for k in range(c.layers)) + conv(f + c.layers * c.growth, f, 1)
    cbam = gate(c.cbam_ratio) + conv(2, 1, c.cbam_kernel) if c.cbam else 0
    total += c.blocks * (dense + cbam) if c.residual else 0
    merged = f * c.blocks if c.skip_merge == "concat" and c.residual else f
    return total + conv(merged, f, 1) + conv(f, c.bands, 3)


@pytest.mark.parametrize("name", CONFIGS)
def test_output_has_the_shape_of_the_reference_and_the_size_follows_from_the_formulas(name: str) -> None:
    config = CONFIGS[name]
    model = MARSTFN(config)
    s2, landsat, pan = inputs(config.pan)
    assert model(s2, landsat, pan).shape == s2.shape
    assert parameters(model) == expected(config)


def test_sizes_known_from_the_measured_reading() -> None:
    assert parameters(MARSTFN(Config())) == 1_174_610
    assert 3.2e6 < parameters(MARSTFN(Config(growth=64))) < 3.4e6


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(1)
    model = MARSTFN(CONFIGS[name])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, DANet):
                module.gamma_position.fill_(0.3)
                module.gamma_channel.fill_(0.3)
            if isinstance(module, SE | CBAM):  # four hidden units may all be silent by chance, which is no fault
                module.down.bias.fill_(2.0)
        model.out.weight.normal_(0, 0.05)
    s2, landsat, pan = inputs(model.config.pan)
    model(s2, landsat, pan).square().mean().backward()
    silent = [
        n
        for n, p in model.named_parameters()
        # a constant added to all keys cancels in the softmax over pixels
        if not n.endswith("key.bias") and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert silent == []


def test_danet_is_the_identity_at_initialisation_and_not_once_its_gates_open() -> None:
    block = DANet(16)
    x = torch.randn(2, 16, 7, 9)
    assert torch.equal(block(x), x)
    block.gamma_position.data.fill_(0.1)
    assert not torch.equal(block(x), x)


@pytest.mark.parametrize("size", [(5, 8), (20, 20)])
def test_fast_position_attention_equals_the_naive_one(size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    block = PositionAttention(64)
    x = torch.randn(2, 64, *size)
    fast, naive = block(x), block.naive(x)
    assert torch.allclose(fast, naive, atol=2e-5)
    scaled = nn.functional.scaled_dot_product_attention(
        *(f(x).flatten(2).transpose(1, 2).unsqueeze(1) for f in (block.query, block.key, block.value))
    )
    assert not torch.allclose(scaled.squeeze(1).transpose(1, 2).reshape(x.shape), naive, atol=1e-2)


def test_channel_attention_gives_most_weight_to_the_least_similar_channel() -> None:
    x = torch.randn(1, 5, 4, 4, dtype=torch.float64)
    flat = x.flatten(2)[0]
    energy = flat @ flat.T
    weights = torch.softmax(energy.max(1, keepdim=True).values - energy, dim=1)
    assert torch.allclose(ChannelAttention()(x), (weights @ flat).reshape(x.shape))
    assert int(weights[0].argmax()) == int(energy[0].argmin())


def test_squeeze_and_excitation_by_hand() -> None:
    block = SE(16, 16)
    x = torch.randn(3, 16, 4, 5)
    w1, b1, w2, b2 = block.down.weight[:, :, 0, 0], block.down.bias, block.up.weight[:, :, 0, 0], block.up.bias
    gate = torch.sigmoid(torch.relu(x.mean((2, 3)) @ w1.T + b1) @ w2.T + b2)
    assert torch.allclose(block(x), x * gate[:, :, None, None], atol=1e-6)


def test_cbam_attends_to_channels_then_to_space() -> None:
    block = CBAM(16, 4, 7)
    nn.init.constant_(block.up.bias, 100.0)  # the channel gate fully open
    x = torch.randn(1, 16, 6, 6)
    plane = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    gate = torch.sigmoid(nn.functional.conv2d(plane, block.spatial.weight, block.spatial.bias, padding=3))
    assert torch.allclose(block(x), x * gate, atol=1e-6)


def test_dense_block_is_a_residual() -> None:
    block = RDB(8, 4, 6)
    nn.init.zeros_(block.fuse.weight)
    nn.init.zeros_(block.fuse.bias)
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(block(x), x)
    assert [layer.in_channels for layer in block.dense] == [8, 12, 16, 20, 24, 28]


def test_multiscale_sees_as_far_as_its_largest_dilation() -> None:
    block = Multiscale(1, 16, danet=False).double()
    x = torch.randn(1, 1, 15, 15, dtype=torch.float64)
    moved = x.clone()
    moved[0, 0, 7, 13] += 1  # six pixels from the centre: only the branch of dilation 6 reaches it
    far = x.clone()
    far[0, 0, 7, 14] += 1
    centre = (slice(None), slice(None), 7, 7)
    assert not torch.equal(block(x)[centre], block(moved)[centre])
    assert torch.equal(block(x)[centre], block(far)[centre])


def test_a_fresh_anchored_network_is_the_additive_baseline() -> None:
    model = MARSTFN(Config(anchor="additive", centre=0.15, spread=0.15))
    s2, landsat, pan = inputs(True)
    with torch.no_grad():
        got = model(s2, landsat, pan).numpy()
    for k in range(2):
        assert abs(got[k] - additive(s2[k].numpy(), landsat[k].numpy())).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 64}, "multiple of 6"),
        ({"skip_merge": "mean"}, "skip_merge"),
        ({"anchor": "bicubic"}, "anchor"),
        ({"features": 60}, "multiple of 8"),
        ({"spread": 0.0}, "spread"),
        ({"guide": True}, "anchor"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**change)


def test_inputs_that_do_not_fit_are_refused() -> None:
    s2, landsat, pan = inputs(True)
    model = MARSTFN(Config())
    with pytest.raises(ValueError, match="with pan"):
        model(s2, landsat, None)
    with pytest.raises(ValueError, match="without pan"):
        MARSTFN(Config(pan=False))(s2, landsat, pan)
    with pytest.raises(ValueError, match="Landsat patch"):
        model(s2, landsat[:, :, 1:], pan)
    with pytest.raises(ValueError, match="pan patch"):
        model(s2, landsat, pan[:, :, 1:])
    with pytest.raises(ValueError, match="Sentinel-2 patch"):
        model(s2[:, :5], landsat, pan)


WIDE = Config(
    pan=False, features=16, growth=8, layers=2, blocks=1, patch=24, anchor="additive", guide=True, context=True,
    uncertainty=True, centre=0.15, spread=0.15,
)  # fmt: skip


def seen() -> tuple[Tensor, Tensor, None, Tensor]:
    torch.manual_seed(11)
    return torch.rand(2, 6, 24, 24), torch.rand(2, 6, 8, 8), None, torch.rand(2, 8, 24, 24)


def test_uncertainty_is_a_positive_channel_of_its_own_that_does_not_shape_the_bands() -> None:
    model = build(WIDE)
    model.out.weight.data.normal_(0, 0.05)
    out = model(*seen())
    assert out.shape == (2, 7, 24, 24)
    assert torch.allclose(out[:, 6], torch.full((2, 24, 24), 0.01))
    assert model.doubt is not None
    model.doubt.out.weight.data.normal_(0, 0.05)
    out = model(*seen())
    assert (out[:, 6] > 0).all()
    out[:, 6].sum().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched == {"doubt.near.weight", "doubt.near.bias", "doubt.out.weight", "doubt.out.bias"}


def test_the_context_of_the_reference_is_seen_and_asked_for() -> None:
    model = build(WIDE)
    model.out.weight.data.normal_(0, 0.05)
    s2, landsat, _, context = seen()
    other = context.clone()
    other[:, 7] = 1
    assert not torch.equal(model(s2, landsat, None, context)[:, :6], model(s2, landsat, None, other)[:, :6])
    with pytest.raises(ValueError, match="with the context"):
        model(s2, landsat)
    with pytest.raises(ValueError, match=r"not \(n, 8, 24, 24\)"):
        model(s2, landsat, None, context[:, :7])
    with pytest.raises(ValueError, match="without the context"):
        build(Config(pan=False))(s2, landsat, None, context)
