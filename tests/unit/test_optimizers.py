"""Muon and AdamW behind one optimiser: who trains what, and exactness of schedules and saved state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from panollava.errors import ConfigError
from panollava.training.optimizers import MuonWithAdamW, build_optimizer


def tiny_model() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(40, 32),
            "inner": nn.Linear(32, 64),
            "norm": nn.LayerNorm(64),
            "outer": nn.Linear(64, 32),
            "head": nn.Linear(32, 40, bias=False),
        }
    )


def steps(model: nn.ModuleDict, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        tokens = torch.randint(0, 40, (16,), generator=torch.Generator().manual_seed(step))
        hidden = model["outer"](model["norm"](model["inner"](model["embed"](tokens))))
        loss = nn.functional.cross_entropy(model["head"](hidden), (tokens + 1) % 40)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def muon_for(model: nn.Module) -> MuonWithAdamW:
    optimizer = build_optimizer(model.named_parameters(), optimizer="muon", lr=1e-3, muon_lr=0.02)
    assert isinstance(optimizer, MuonWithAdamW)
    return optimizer


def test_muon_takes_the_hidden_matrices_only() -> None:
    model = tiny_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = muon_for(model).param_groups
    trained = {flag: {names[id(p)] for g in groups if g["muon"] is flag for p in g["params"]} for flag in (True, False)}
    assert trained[True] == {"inner.weight", "outer.weight"}
    assert trained[True] | trained[False] == set(names.values())
    spared = [names[id(p)] for g in groups if not g["muon"] and g["weight_decay"] == 0 for p in g["params"]]
    assert set(spared) == {"inner.bias", "outer.bias", "norm.weight", "norm.bias"}


def test_each_half_does_what_its_own_optimiser_does() -> None:
    together, apart = tiny_model(), tiny_model()
    steps(together, muon_for(together), 0, 1)
    hidden = [apart["inner"].weight, apart["outer"].weight]
    rest = [p for p in apart.parameters() if all(p is not h for h in hidden)]
    tokens = torch.randint(0, 40, (16,), generator=torch.Generator().manual_seed(0))
    outer = apart["outer"](apart["norm"](apart["inner"](apart["embed"](tokens))))
    nn.functional.cross_entropy(apart["head"](outer), (tokens + 1) % 40).backward()
    torch.optim.Muon(hidden, lr=0.02, weight_decay=0.01).step()
    matrices = [p for p in rest if p.ndim == 2]
    vectors = [p for p in rest if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98)).step()
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(tmp_path) -> None:
    def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    whole = tiny_model()
    optimizer = muon_for(whole)
    scheduler = schedule(optimizer)
    for step in range(6):
        steps(whole, optimizer, step, step + 1)
        scheduler.step()
        if step == 2:
            torch.save([whole.state_dict(), optimizer.state_dict(), scheduler.state_dict()], tmp_path / "state")
    weights, optimizer_state, scheduler_state = torch.load(tmp_path / "state", weights_only=True)
    resumed = tiny_model()
    resumed.load_state_dict(weights)
    optimizer = muon_for(resumed)
    scheduler = schedule(optimizer)
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(scheduler_state)
    for step in range(3, 6):
        steps(resumed, optimizer, step, step + 1)
        scheduler.step()
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_scheduler_reaches_both_halves_also_after_loading() -> None:
    model = tiny_model()
    optimizer = muon_for(model)
    steps(model, optimizer, 0, 1)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [parameter.clone() for parameter in model.parameters()]
    steps(model, optimizer, 1, 2)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_adamw_frozen_and_tied_parameters() -> None:
    model = tiny_model()
    model["head"].weight = model["embed"].weight
    model["inner"].requires_grad_(False)
    named = [*model.named_parameters(), ("head.weight", model["head"].weight)]
    optimizer = build_optimizer(named, optimizer="adamw", lr=1e-3)
    assert type(optimizer) is torch.optim.AdamW
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len({id(p) for p in trained}) == 5


def test_a_fused_adamw_lets_lightning_clip_and_does_the_same() -> None:
    """Of an optimiser that is fused as a whole Lightning believes that it unscales gradients, and refuses to clip."""
    plain, fused = tiny_model(), tiny_model()
    one = build_optimizer(plain.named_parameters(), lr=1e-3)
    two = build_optimizer(fused.named_parameters(), lr=1e-3, fused=True)
    assert not one.param_groups[0]["fused"] and two.param_groups[0]["fused"]
    assert not getattr(two, "_step_supports_amp_scaling", False)
    steps(plain, one, 0, 3)
    steps(fused, two, 0, 2)
    two.load_state_dict(copy.deepcopy(two.state_dict()))
    steps(fused, two, 2, 3)
    for first, second in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"optimizer": "sgd"}, "adamw or muon"), ({"optimizer": "muon"}, "needs muon_lr")],
)
def test_wrong_settings_say_what_is_allowed(settings, says) -> None:
    with pytest.raises(ConfigError, match=says):
        build_optimizer(tiny_model().named_parameters(), lr=1e-3, **settings)
    frozen = tiny_model().requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(frozen.named_parameters(), lr=1e-3)
