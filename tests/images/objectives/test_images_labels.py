"""Classes, numbers, boxes and segments of images: learnt, measured, and what is refused."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_stores import coloured, scenes_store, shapes_store

from sciforge.core.data.store import Store
from sciforge.core.domain import get_domain, seeded_model
from sciforge.core.learners.linear_probe import block_scales, fit_logistic
from sciforge.core.training.distributed import Engine
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Freeze, Hardware, Run, Schedule, Subset
from sciforge.errors import ConfigError, DataError
from sciforge.experiments.invariance.run import warn_before_training
from sciforge.images import ClassifyImages, ImageCodec, VitConfig
from sciforge.images.model.center_maps import centre_map, detected_boxes, focal, peaks
from sciforge.images.objectives.detection import DetectObjects, chosen_cells
from sciforge.images.objectives.segmentation import SegmentPatches, overlaps
from sciforge.images.objectives.supervised import RegressImages

MODEL = VitConfig(width=32, depth=2, heads=2, hidden=48)
CPU = Engine(torch.device("cpu"), "float32")


def run(
    store: Store, out: Path, objective, steps: int = 1, lr: float = 0.0, patch: int = 3, **changes
) -> Run:
    return Run(
        data=store.path,
        out=out,
        objective=objective,
        model=MODEL,
        codec=ImageCodec(patch=patch),
        schedule=Schedule(steps=steps, batch=16, lr=lr, kind="constant", weight_decay=0.0),
        hardware=Hardware(device="cpu", threads=1),
        **changes,
    )


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Store:
    return shapes_store(tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def discs(tmp_path_factory) -> Store:
    return coloured(tmp_path_factory.mktemp("discs"))


# Classes and numbers ------------------------------------------------------------------------------


def test_the_solved_head_alone_tells_classes_and_is_the_ridge_solution(discs, tmp_path):
    checkpoint = train(run(discs, tmp_path / "solved", ClassifyImages(bins=1)))
    predictor = Model.load(checkpoint.path, device="cpu")
    assert predictor.evaluate(discs, split="test")["accuracy"] > 0.95
    objective, model = predictor.objective, predictor.network
    records = list(discs.split("train"))
    with torch.no_grad():
        made = [
            objective.prepare(r, predictor.codec, np.random.default_rng(0), False) for r in records
        ]
        x_NF = objective.features(model, predictor.codec.collate(made)).numpy()
    centre_F, scale_F = block_scales(x_NF, [32])
    label_N = np.array([objective.class_number(r["label"]) for r in records])
    weight_CF, bias_C = fit_logistic((x_NF - centre_F) / scale_F, label_N, 2, seed=0)
    probability_NC = predictor.outputs(records)["probability"]
    scores_NC = (x_NF - centre_F) / scale_F @ weight_CF.T + bias_C
    np.testing.assert_allclose(
        probability_NC[:, 1], 1 / (1 + np.exp(scores_NC[:, 0] - scores_NC[:, 1])), atol=1e-3
    )


def test_numbers_are_learnt_in_their_own_unit(tmp_path):
    store = coloured(tmp_path, numeric=True)
    checkpoint = train(run(store, tmp_path / "numbers", RegressImages(bins=1)))
    value_N = store.split("train").column("value")
    assert checkpoint.objectives[0].std == pytest.approx(np.std(value_N)) and set(value_N) == {
        20.0,
        26.0,
    }
    metrics = Model.load(checkpoint.path, device="cpu").evaluate(store, split="test")
    assert metrics["r2"] > 0.8 and metrics["rmse"] < 1.3


def test_a_frozen_trunk_stays_and_few_labels_are_enough(discs, tmp_path):
    asked = run(
        discs,
        tmp_path / "few",
        ClassifyImages(bins=1),
        steps=5,
        lr=1e-2,
        finetuning=Freeze(),
        subset=Subset(20),
    )
    checkpoint = train(asked)
    fresh = seeded_model(MODEL, checkpoint.codec, checkpoint.objectives, asked.seed)
    for name, tensor in checkpoint.weights().items():
        if not name.startswith("heads."):
            assert torch.equal(tensor, fresh.state_dict()[name]), name
    assert Model.load(checkpoint.path, device="cpu").evaluate(discs, split="test")["accuracy"] > 0.9


def test_layers_and_bins_are_what_the_head_reads(bars):
    objective = ClassifyImages(bins=2, layers=(0, -1), classes=("lying", "standing"))
    codec = ImageCodec(patch=3).fit(bars)
    model = seeded_model(MODEL, codec, [objective], 0).eval()
    batch = codec.collate([codec.encode({"image": bars[i]["image"]}) for i in range(3)])
    with torch.no_grad():
        features_BF = objective.features(model, batch)
        first, *_, last = model(batch, layers=True)
    assert features_BF.shape == (3, 2 * 4 * 32)
    upper_left = last.unflatten(1, (4, 4))[:, :2, :2].mean((1, 2))
    assert torch.allclose(features_BF[:, 128:].unflatten(1, (32, 4))[..., 0], upper_left, atol=1e-6)
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        seeded_model(MODEL, codec, [replace(objective, layers=(3,))], 0)


def test_what_labels_refuse(bars, tmp_path):
    with pytest.raises(DataError, match="'flying' is none of lying, standing"):
        objective = ClassifyImages(classes=("lying", "standing"))
        objective.prepare(
            {**bars[0], "label": "flying"},
            ImageCodec(patch=3).fit(bars),
            np.random.default_rng(0),
            True,
        )
    bare = shapes_store(tmp_path, labels=False)
    for objective in (ClassifyImages(), DetectObjects(), SegmentPatches()):
        with pytest.raises(DataError, match="; prepare with"):
            objective.resolve(bare)
    for wrong in ({"bins": 0}, {"layers": ()}, {"crop": 1.5}, {"hue": 0.6}):
        with pytest.raises(ConfigError):
            ClassifyImages(**wrong)


# Random views -------------------------------------------------------------------------------------


def test_views_are_of_training_only_and_of_the_asked_strength(bars):
    codec = ImageCodec(patch=3).fit(bars)
    objective = ClassifyImages(flip=1.0, classes=("lying", "standing"))
    assert objective.augments == ("flip",) and ClassifyImages().augments == ()
    image = torch.from_numpy(np.array(bars[0]["image"]))
    seen = [
        objective.prepare(bars[0], codec, np.random.default_rng(i), True)["image"]
        for i in range(200)
    ]
    mirrored = [torch.equal(x, image.flip(1)) for x in seen]
    assert 70 < sum(mirrored) < 130 and all(
        m or torch.equal(x, image) for m, x in zip(mirrored, seen, strict=True)
    )
    assert torch.equal(
        objective.prepare(bars[0], codec, np.random.default_rng(1), False)["image"], image
    )
    assert set(get_domain("images").augmentations) >= set(
        ClassifyImages(0.1, 0.1, 0.1, 0.1, 0.1).augments
    )


def test_a_head_solved_on_turned_hues_cannot_tell_hues_and_training_warns_of_it(discs, tmp_path):
    plain, turned = ClassifyImages(bins=1), ClassifyImages(bins=1, hue=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_before_training(run(discs, tmp_path / "a", plain))
    with pytest.warns(UserWarning, match="hue"):
        warn_before_training(run(discs, tmp_path / "b", turned))
    metrics = []
    for name, objective in (("plain", plain), ("turned", turned)):
        checkpoint = train(run(discs, tmp_path / name, objective, steps=10, lr=1e-3))
        metrics.append(
            Model.load(checkpoint.path, device="cpu").evaluate(discs, split="test")["accuracy"]
        )
    assert metrics[0] > 0.95 and metrics[1] < 0.7


# Boxes --------------------------------------------------------------------------------------------


def test_the_map_of_centres_by_hand():
    boxes = np.array([[0.0, 0, 8, 4], [8, 8, 12, 12], [9, 9, 11, 11]])
    made = centre_map(boxes, np.array([0, 1, 2]), (4, 4), 4)
    heat, label, frame = (made[f"target_{name}"] for name in ("heat", "label", "frame"))
    assert np.argwhere(heat == 1).tolist() == [[0, 1], [2, 2]] == np.argwhere(label >= 0).tolist()
    assert label[0, 1] == 0 and label[2, 2] == 2  # the smaller of two in one cell
    np.testing.assert_allclose(frame[0, 1], [2, 1, 0, 0.5])
    np.testing.assert_allclose(frame[2, 2], [0.5, 0.5, 0.5, 0.5])
    assert heat[0, 0] == pytest.approx(np.exp(-1 / (2 * 0.4**2)))
    assert (
        centre_map(np.array([[15.0, 15, 17, 17]]), np.array([0]), (4, 4), 4)["target_label"][3, 3]
        == 0
    )


def test_boxes_come_back_from_their_map_and_neighbours_of_a_peak_do_not():
    boxes = np.array([[1.0, 2, 9, 10], [12, 1, 15, 7]])
    made = centre_map(boxes, np.array([1, 0]), (4, 4), 4)
    heat, label, frame = (
        torch.from_numpy(made[f"target_{name}"])[None] for name in ("heat", "label", "frame")
    )
    sure = torch.nn.functional.one_hot(label.clamp(min=0), 2).float()
    found = detected_boxes(peaks(heat, sure, frame, 4, 5)[0].numpy(), 0.5)
    order = np.argsort(-found["labels"])
    np.testing.assert_allclose(found["boxes"][order], boxes, atol=1e-5)
    assert found["scores"].tolist() == [1.0, 1.0]
    # a peak of two classes speaks for both
    torn = peaks(heat, torch.full((1, 4, 4, 2), 0.5), frame, 4, 4)[0]
    assert torn[:, 4].tolist() == [0.5] * 4 and sorted(torn[:, 5].tolist()) == [0, 0, 1, 1]


def test_cells_that_the_head_is_solved_on():
    made = centre_map(np.array([[4.0, 4, 12, 12]]), np.array([1]), (8, 8), 4)
    image = (
        np.arange(64.0).reshape(8, 8, 1),
        made["target_heat"],
        made["target_label"],
        made["target_frame"],
    )
    cell_NF, label_N, frame_N4, share = chosen_cells([image, image], np.random.default_rng(0))
    assert len(cell_NF) == 2 * 13 and label_N.tolist() == [1, *[-100] * 12] * 2
    assert share == 24 / (2 * int((made["target_heat"] < 0.5).sum()))
    assert (cell_NF[label_N == 1] == 8 * 2 + 2).all() and (
        frame_N4[label_N == 1] == [2, 2, 0, 0]
    ).all()
    assert not np.isin(cell_NF[label_N < 0], np.flatnonzero(made["target_heat"] >= 0.5)).any()


def test_the_focal_loss_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    logits, heat = rng.normal(size=200), rng.random(200)
    heat[::10] = 1.0
    p = 1 / (1 + np.exp(-logits))
    by_hand = np.where(
        heat == 1, -((1 - p) ** 2) * np.log(p), -((1 - heat) ** 4) * p**2 * np.log(1 - p)
    )
    np.testing.assert_allclose(
        focal(torch.from_numpy(logits), torch.from_numpy(heat)).numpy(), by_hand, rtol=1e-10
    )


def test_detection_is_solved_before_the_first_step_and_learns_on(tmp_path):
    store = scenes_store(tmp_path)
    found = {}
    for name, warm_start, steps in (("fresh", False, 1), ("solved", True, 1), ("learnt", True, 80)):
        lr = 2e-3 if steps > 1 else 0.0
        objective = DetectObjects(warm_start=warm_start)
        checkpoint = train(run(store, tmp_path / name, objective, steps=steps, lr=lr, patch=4))
        found[name] = Model.load(checkpoint.path, device="cpu").evaluate(store, split="test")
    assert found["fresh"]["ap50"] < 0.1 < 0.3 < found["solved"]["ap50"] < found["learnt"]["ap50"]
    assert found["learnt"]["ap50"] > 0.6 and found["learnt"]["ap75"] <= found["learnt"]["ap50"]


def test_images_without_objects_are_trained_on_and_cannot_be_measured(tmp_path):
    store = scenes_store(tmp_path)
    objective = DetectObjects().resolve(store)
    codec = ImageCodec(patch=4).fit(store)
    empty = {**store[0], "boxes": np.zeros((0, 4), np.float32), "box_labels": np.zeros(0, np.int64)}
    model = seeded_model(MODEL, codec, [objective], 0)
    batch = codec.collate([objective.prepare(empty, codec, np.random.default_rng(0), True)])
    loss = objective.loss(model, batch)
    assert float(loss.total.detach()) > 0 and int(loss.count) == 1
    with torch.no_grad(), pytest.raises(DataError, match="no object in 1 images"):
        objective.metrics(
            {"detections": objective.predict(model, batch)["detections"].numpy()}, [empty]
        )
    with pytest.raises(ConfigError, match="rotation"):
        DetectObjects(rotation=0.1)


def test_boxes_move_with_a_mirrored_image(tmp_path):
    store = scenes_store(tmp_path)
    codec, objective = ImageCodec(patch=4).fit(store), DetectObjects(flip=1.0).resolve(store)
    plain = objective.prepare(store[0], codec, np.random.default_rng(0), False)
    seeds = [s for s in range(20) if np.random.default_rng(s).random() < 0.5]
    mirrored = objective.prepare(store[0], codec, np.random.default_rng(seeds[0]), True)
    assert torch.equal(mirrored["image"], plain["image"].flip(1))
    assert torch.equal((mirrored["target_label"] >= 0).sum(1), (plain["target_label"] >= 0).sum(1))


# Segments -----------------------------------------------------------------------------------------


def test_overlaps_agree_with_scikit_learn():
    from sklearn.metrics import f1_score, jaccard_score

    rng = np.random.default_rng(0)
    true, told = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    iou_K, dice_K = overlaps(told, true, 4)
    np.testing.assert_allclose(iou_K, jaccard_score(true, told, average=None))
    np.testing.assert_allclose(dice_K, f1_score(true, told, average=None))


def test_segments_are_learnt_pixel_by_pixel_and_ignored_ones_count_for_nothing(tmp_path):
    store = scenes_store(tmp_path, segments=True)
    objective = SegmentPatches()
    checkpoint = train(run(store, tmp_path / "segments", objective, steps=120, lr=3e-3, patch=4))
    assert checkpoint.objectives[0].classes == 3
    metrics = Model.load(checkpoint.path, device="cpu").evaluate(store, split="test")
    assert metrics["iou"] > 0.6 and metrics["dice"] > metrics["iou"]
    objective, codec = checkpoint.objectives[0], checkpoint.codec
    record = dict(store[0])
    record["segments"] = np.array(record["segments"])
    record["segments"][:8] = 255
    example = objective.prepare(record, codec, np.random.default_rng(0), False)
    model = checkpoint.build()
    loss = objective.loss(model, codec.collate([example]))
    assert int(loss.count) == record["segments"].size - 8 * record["segments"].shape[1]
    record["segments"][:8] = 7
    with pytest.raises(DataError, match="holds class 7, of 3"):
        objective.prepare(record, codec, np.random.default_rng(0), False)
