import copy
import math

import pytest
import timm
import torch
from lightly.loss import DINOLoss
from torch import nn
from torch.nn import functional

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone
from foldsmith.models.classifier import trainable_parameters
from foldsmith.ssl.dino import DINO, distillation_loss
from foldsmith.ssl.method import feature_std
from foldsmith.ssl.momentum import momentum_at, momentum_copy, move
from foldsmith.steps.registry import LIBRARY_TYPES, METHODS

SMALL = {"proj_hidden_dim": 64}

# Teacher -> student, by the attributes of a method.
TEACHERS = {
    "BYOL": {"target_backbone": "backbone", "target_projection": "projection"},
    "MoCoV3": {"key_backbone": "backbone", "key_projection": "projection"},
    "DINO": {"backbone": "student_backbone", "teacher_head": "student_head"},
}


def create(name, **options):
    torch.manual_seed(0)
    return LIBRARY_TYPES[name](create_backbone("test_resnet"), **SMALL, **options)


def views(n=8, seed=1):
    """Two slightly different views of n images."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 1, 1, generator=rng) + torch.randn(n, 3, 32, 32, generator=rng)
    return tuple(images + 0.3 * torch.randn(n, 3, 32, 32, generator=rng) for _ in range(2))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_a_small_batch(name):
    model = create(name, **({"out_dim": 64, "use_bn_in_head": True} if name == "DINO" else {}))
    if name == "DINO":
        # Where the running mean of the teacher's outputs is after a while.
        model.after_update(0.5)
        model.center.momentum = 0.0
        model(views())
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=1e-3)
    losses = []
    for _ in range(12):
        scalars = model(views())
        assert {"loss", "std"} <= scalars.keys()
        assert all(value.shape == () and value.isfinite() for value in scalars.values())
        assert scalars["loss"].dtype == torch.float32
        assert 0 < scalars["std"] <= 1.01 / model.dim**0.5
        scalars["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(scalars["loss"].item())
    assert min(losses[-3:]) < losses[0] - 0.02 * abs(losses[0]), losses


@pytest.mark.parametrize("name", METHODS)
def test_the_kept_backbone_is_one_of_timm(name):
    state = create(name).backbone.state_dict()
    timm.create_model("test_resnet", num_classes=0).load_state_dict(state, strict=True)


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_computed_in_full_precision(name):
    model = create(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(views())["loss"]
    assert loss.dtype == torch.float32
    exact = create(name)(views())["loss"]
    assert loss.item() == pytest.approx(exact.item(), rel=0.05, abs=0.05)


@pytest.mark.parametrize("name", TEACHERS)
def test_gradients_never_reach_a_teacher(name):
    model = create(name)
    model(views())["loss"].backward()
    for teacher, student in TEACHERS[name].items():
        assert all(
            not p.requires_grad and p.grad is None for p in getattr(model, teacher).parameters()
        )
        assert any(p.grad is not None for p in getattr(model, student).parameters())
    trained = {id(p) for p in trainable_parameters(model)}
    assert not trained & {id(p) for t in TEACHERS[name] for p in getattr(model, t).parameters()}


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("progress", [0.01, 0.6, 1.0])
def test_a_teacher_moves_by_the_momentum(name, progress):
    model = create(name, momentum=0.9)
    for student in TEACHERS[name].values():
        for parameter in getattr(model, student).parameters():
            parameter.data.add_(1.0)
    before = copy.deepcopy(model)
    model.after_update(progress)
    momentum = 1 - 0.1 * (math.cos(math.pi * progress) + 1) / 2
    for teacher, student in TEACHERS[name].items():
        for old, own, new in zip(
            getattr(before, teacher).parameters(),
            getattr(model, student).parameters(),
            getattr(model, teacher).parameters(),
            strict=True,
        ):
            torch.testing.assert_close(new.data, momentum * old.data + (1 - momentum) * own.data)


def test_the_momentum_rises_to_one():
    values = [momentum_at(0.99, k / 10) for k in range(11)]
    assert values[0] == pytest.approx(0.99) and values[-1] == 1
    assert values == sorted(values)


def test_a_teacher_drops_nothing_out():
    student = create_backbone("vit_tiny_patch16_224", drop_path_rate=0.5, img_size=32)
    teacher = momentum_copy(student)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(teacher.train()(images), teacher(images))
    assert not torch.equal(student.train()(images), student(images))
    move(teacher, student, 0.5)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("DINO", "LeJEPA")])
def test_a_third_view_is_refused(name):
    with pytest.raises(ConfigError, match="compares 2 views"):
        create(name)((*views(), views()[0]))


def test_the_loss_of_moco_is_the_published_one():
    model = create("MoCoV3").eval()
    first, second = views()
    q = [model.prediction(model.projection(model.backbone(view))) for view in (first, second)]
    k = [model.key_projection(model.key_backbone(view)) for view in (first, second)]
    expected = 0.0
    for queries, keys in ((q[0], k[1]), (q[1], k[0])):
        similar = functional.cosine_similarity(queries[:, None], keys[None], dim=-1) / 0.2
        expected += (-similar.log_softmax(dim=1).diagonal().mean() * 2 * 0.2).item()
    assert model((first, second))["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_dino_is_that_of_lightly():
    teacher, student = torch.randn(2, 5, 16), torch.randn(6, 5, 16)
    theirs = DINOLoss(16, teacher_temp=0.05, student_temp=0.1)
    theirs.center.add_(torch.randn(16))
    ours = distillation_loss((teacher - theirs.center) / 0.05, student / 0.1)
    torch.testing.assert_close(ours, theirs(list(teacher), list(student)))


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {}),
        ("vit_tiny_patch16_224", {"img_size": 32, "options": {"dynamic_img_size": True}}),
    ],
)
def test_dino_takes_local_crops(backbone, options):
    model = DINO(create_backbone(backbone, **options), **SMALL, out_dim=32)
    crops = (*views(4), *(torch.randn(4, 3, 16, 16) for _ in range(3)))
    seen = []
    model.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    scalars = model(crops)
    scalars["loss"].backward()
    assert seen == [(8, 3, 32, 32)]  # the teacher sees the global crops alone
    assert 0 < scalars["entropy"] <= math.log(32) + 1e-5
    assert scalars["loss"].item() == pytest.approx(math.log(32), rel=0.2)


def test_dino_keeps_its_prototypes_at_first():
    model = create("DINO", freeze_last_layer_fraction=0.1)
    for progress, moves in ((0.05, False), (0.1, True)):
        model.after_update(progress)
        model.zero_grad()
        model(views())["loss"].backward()
        assert bool(model.student_head.prototypes.grad.any()) is moves


def test_dinos_schedules_are_in_its_state():
    model = create("DINO")
    model(views())
    model.after_update(0.05)
    assert model.teacher_temperature.item() == pytest.approx(0.055)
    twin = create("DINO")
    twin.load_state_dict(model.state_dict())
    assert twin.teacher_temperature.item() == pytest.approx(0.055)
    assert model.center.value.any() and torch.equal(twin.center.value, model.center.value)


def test_dinos_centre_stays_in_evaluation():
    model = create("DINO").eval()
    model(views())
    assert not model.center.value.any()


def test_the_loss_of_lejepa_is_that_of_lightly():
    lejepa_loss = pytest.importorskip("lightly.loss.lejepa_loss")  # since lightly 1.6
    model = create("LeJEPA", lambd=0.2, num_slices=40)
    theirs = lejepa_loss.LeJEPALoss(lambda_param=0.2)
    theirs.sigreg._generate_unit_vectors = lambda *_: model.directions
    crops = (*views(), functional.interpolate(views(seed=2)[0], size=16))
    projections = [model.projection(model.backbone(crop)) for crop in crops]
    expected = theirs(
        global_proj=torch.stack(projections[:2]), local_proj=torch.stack(projections[2:])
    )
    torch.testing.assert_close(model(crops)["loss"], expected)


def test_lejepas_directions_are_a_function_of_the_progress():
    one, other = create("LeJEPA"), create("LeJEPA", lambd=0.1)
    first = one.directions.clone()
    torch.manual_seed(7)
    for model in (one, other):
        model.after_update(0.25)
    assert torch.equal(one.directions, other.directions)
    assert (one.directions - first).abs().mean() > 0.05
    torch.testing.assert_close(one.directions.norm(dim=0), torch.ones(256))
    resumed = create("LeJEPA")
    resumed.load_state_dict(one.state_dict())
    assert torch.equal(resumed.directions, one.directions)
    assert resumed(views())["loss"] == one(views())["loss"]


def test_lejepa_needs_two_views_and_a_weight_of_at_most_one():
    with pytest.raises(ConfigError, match="needs 2 global views"):
        create("LeJEPA")(views()[:1])
    with pytest.raises(ConfigError, match=r"model/lambd: 1\.5 must be in 0\.\.1"):
        create("LeJEPA", lambd=1.5)


def test_the_spread_of_features():
    assert feature_std(torch.ones(10, 4)).item() < 1e-6
    assert feature_std(torch.randn(4000, 16)).item() == pytest.approx(0.25, rel=0.02)
    assert isinstance(create("BYOL"), nn.Module)
