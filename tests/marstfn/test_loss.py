"""The adaptive loss, against numbers worked out by hand."""

import math

import pytest
import torch

from marstfn.loss import adaptive, degradation, laplace


def test_by_hand() -> None:
    prediction, target = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])
    l1, frobenius = 2.0, math.sqrt(10)
    for normalised, lf in ((True, math.sqrt(5)), (False, frobenius)):
        expected = (l1**2 + lf**2) / (l1 + lf)
        assert adaptive(prediction, target, normalised=normalised).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_of_the_detached_weights_by_hand() -> None:
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    adaptive(x, torch.zeros(2)).backward()
    l1, lf = 2.0, math.sqrt(5)
    a, b = l1 / (l1 + lf), lf / (l1 + lf)
    assert x.grad is not None
    for k, value in enumerate((1.0, 3.0)):
        assert x.grad[k].item() == pytest.approx(a / 2 + b * value / (2 * lf), rel=1e-5)


def test_attached_weights_give_another_gradient_but_the_same_value() -> None:
    grads = []
    for detached in (True, False):
        x = torch.tensor([1.0, 3.0], requires_grad=True)
        loss = adaptive(x, torch.zeros(2), detached=detached)
        loss.backward()
        assert x.grad is not None
        grads.append((loss.item(), x.grad.clone()))
    assert grads[0][0] == pytest.approx(grads[1][0])
    assert not torch.allclose(grads[0][1], grads[1][1])


def test_a_perfect_prediction_costs_nothing_and_pulls_nowhere() -> None:
    x = torch.full((2, 6, 3, 3), 0.3, requires_grad=True)
    loss = adaptive(x, x.detach().clone())
    loss.backward()
    assert x.grad is not None
    assert loss.item() < 1e-15
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() < 1e-6


def test_the_mask_chooses_what_counts() -> None:
    prediction, target = torch.zeros(1, 6, 2, 2), torch.zeros(1, 6, 2, 2)
    prediction[..., 0, 0] = 5.0
    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    mask[..., 0, 0] = False
    assert adaptive(prediction, target, mask=mask).item() < 1e-15
    assert adaptive(prediction, target).item() > 1
    with pytest.raises(ValueError, match="no pixel"):
        adaptive(prediction, target, mask=torch.zeros_like(mask))
    with pytest.raises(ValueError, match="shape"):
        adaptive(prediction, target[..., :1])


def test_the_degradation_term_counts_what_landsat_contradicts() -> None:
    truth = torch.full((1, 6, 6, 6), 0.2)
    landsat = torch.full((1, 6, 2, 2), 0.2)
    everywhere = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    assert degradation(truth, truth, landsat, everywhere) < 1e-7
    assert degradation(truth, truth, landsat + 0.1, everywhere).item() == pytest.approx(0.05, rel=1e-5)
    assert degradation(truth + 0.01, truth, landsat, everywhere).item() == pytest.approx(0.015, rel=1e-5)
    hole = everywhere.clone()
    hole[..., 0, 0] = False
    spoilt = landsat.clone()
    spoilt[..., 0, 0] = 9
    assert degradation(truth, truth, spoilt, hole) < 1e-7
    nowhere = torch.zeros_like(everywhere)
    nowhere[..., 0, 0] = True
    assert degradation(truth, truth, spoilt, nowhere) < 1e-7


def test_the_laplace_width_that_fits_is_the_mean_of_the_error() -> None:
    error = torch.tensor([0.01, -0.03]).reshape(1, 1, 1, 2)
    mask = torch.ones_like(error, dtype=torch.bool)
    best = laplace(error, torch.tensor(0.02), mask)
    assert best < laplace(error, torch.tensor(0.021), mask)
    assert best < laplace(error, torch.tensor(0.019), mask)
