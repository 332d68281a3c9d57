import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from foldsmith.data import loader as loader_module
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.loader import EpochBatchSampler, ImageLoader
from foldsmith.data.transforms import HorizontalFlip, Normalize, RandomResizedCrop, Resize
from foldsmith.errors import ConfigError, DataError, FoldsmithError
from foldsmith.utils.hashing import FileHashes

TRANSFORMS = [
    RandomResizedCrop(8, 8, scale=(0.3, 1)),
    HorizontalFlip(p=0.5),
    Normalize([0.5] * 3, [0.2] * 3),
]


@pytest.fixture
def paths(write_images):
    return write_images(10, 12, 16)


def store_of(paths):
    folder = None if paths is None else paths[0].parent / "store"
    return ImageStore(folder, FileHashes((folder or Path("no such folder")) / "hashes.json"))


def dataset(paths, n_views=1, transforms=TRANSFORMS, seed=5):
    targets = np.arange(len(paths), dtype=np.float32)
    rows = np.arange(len(paths)) + 100
    return ImageDataset(store_of(paths), paths, rows, targets, transforms, seed, n_views)


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def same(first, second):
    return all(
        torch.equal(a.rows, b.rows)
        and torch.equal(a.targets, b.targets)
        and all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))
        for a, b in zip(first, second, strict=True)
    )


def test_batches_do_not_depend_on_the_workers(paths):
    plain = ImageLoader(dataset(paths, 2), 4, num_workers=0, shuffle=True, seed=1)
    workers = ImageLoader(dataset(paths, 2), 4, num_workers=2, shuffle=True, seed=1)
    for epoch in (0, 3, 1):
        assert same(epoch_of(plain, epoch), epoch_of(workers, epoch))


def test_epochs_views_images_and_seeds_differ(paths):
    data = dataset(paths, 2)
    reference = data.view(0, 0, 0)
    assert not np.array_equal(reference, data.view(1, 0, 0))
    assert not np.array_equal(reference, data.view(0, 0, 1))
    assert not np.array_equal(reference, dataset(paths, 2, seed=6).view(0, 0, 0))
    np.testing.assert_array_equal(reference, dataset(paths, 2).view(0, 0, 0))


def test_loading_leaves_the_global_generators_alone(paths):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    epoch_of(ImageLoader(dataset(paths), 4, shuffle=True), 0)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_a_batch_is_channels_last_and_carries_rows(paths):
    batch = epoch_of(ImageLoader(dataset(paths), 4), 0)[0]
    assert batch.views[0].shape == (4, 3, 8, 8)
    assert batch.views[0].is_contiguous(memory_format=torch.channels_last)
    # Normalising is left to the device.
    assert batch.views[0].dtype == torch.uint8
    assert batch.rows.tolist() == [100, 101, 102, 103]
    assert batch.targets.tolist() == [0, 1, 2, 3]


def test_every_image_is_seen_once_per_epoch_in_a_new_order():
    sampler = EpochBatchSampler(10, 4, shuffle=True, drop_last=False, seed=0)
    orders = []
    for epoch in range(3):
        sampler.epoch = epoch
        keys = [key for batch in sampler for key in batch]
        assert {epoch for epoch, _ in keys} == {epoch}
        orders.append([index for _, index in keys])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1] != orders[2]
    assert sampler.sizes() == [4, 4, 2]


@pytest.mark.parametrize(
    ("n", "sizes"), [(9, [4, 5]), (8, [4, 4]), (1, [1]), (5, [5]), (3, [3]), (11, [4, 4, 3])]
)
def test_a_single_image_left_over_joins_the_batch_before(n, sizes):
    sampler = EpochBatchSampler(n, 4, shuffle=True, drop_last=False, seed=0)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == sampler.sizes() == sizes
    assert sorted(index for batch in batches for _, index in batch) == list(range(n))


def test_drop_last_leaves_the_incomplete_batch_out():
    sampler = EpochBatchSampler(10, 4, shuffle=False, drop_last=True, seed=0)
    assert [len(batch) for batch in sampler] == sampler.sizes() == [4, 4]


def test_fewer_images_than_a_batch_is_said(paths):
    with pytest.raises(ConfigError, match="10 images do not fill one batch of 16"):
        ImageLoader(dataset(paths), 16, drop_last=True)


def test_images_of_different_sizes_are_named(tmp_path):
    for k, width in enumerate((8, 9)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.zeros((8, width, 3), np.uint8))
    ragged = dataset(
        [tmp_path / "0.png", tmp_path / "1.png"], transforms=[Normalize([0] * 3, [1] * 3)]
    )
    with pytest.raises(DataError, match="end them with a crop, pad or resize"):
        list(ImageLoader(ragged, 2))
    whole = dataset(
        [tmp_path / "0.png", tmp_path / "1.png"],
        transforms=[Resize(4, 4), Normalize([0] * 3, [1] * 3)],
    )
    assert len(list(ImageLoader(whole, 2))) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_that_goes_missing_is_one_line(paths, workers):
    # No room to keep images: they are decoded when they are asked for.
    data = ImageDataset(store_of(None), paths, np.arange(10), None, TRANSFORMS, seed=0)
    paths[3].unlink()
    with pytest.raises(DataError) as error:
        list(ImageLoader(data, 2, num_workers=workers))
    assert str(error.value) == f"{paths[3]}: no such image"


@pytest.mark.parametrize(
    "said", [ConnectionResetError(104, "Connection reset by peer"), EOFError()]
)
def test_a_worker_that_dies_while_it_hands_over_a_batch(paths, said, monkeypatch):
    """What a killed worker leaves behind depends on the moment; these come from its socket."""
    monkeypatch.setattr(signal, "SIGCHLD", signal.SIGUSR2)  # not that of the tests themselves
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    loader = ImageLoader(dataset(paths), 2, num_workers=1)

    def broken():
        yield from ()
        raise said

    loader._loader = broken()
    with pytest.raises(FoldsmithError, match="a loader process died .* lower num_workers"):
        list(loader)
    # torch says it once, not again at the end of every other process.
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


@pytest.mark.parametrize("size", ["16k", "100k"])
def test_a_full_shared_memory_is_called_so(tmp_path, paths, size):
    """Too little for the semaphores of two processes, and enough for these but for no batch."""
    script = tmp_path / "load.py"
    script.write_text(
        "import sys; from pathlib import Path; import numpy as np\n"
        "from foldsmith.data.datasets import ImageDataset\n"
        "from foldsmith.data.loader import ImageLoader, worker_errors\n"
        "from foldsmith.data.cache.image_store import ImageStore\n"
        "from foldsmith.data.transforms import Normalize, Resize\n"
        "from foldsmith.errors import FoldsmithError\n"
        "from foldsmith.utils.hashing import FileHashes\n"
        "store = ImageStore(None, FileHashes(Path('none/none')))\n"
        "paths = list(map(Path, sys.argv[1:]))\n"
        "steps = [Resize(200, 200), Normalize([0] * 3, [1] * 3)]\n"
        "data = ImageDataset(store, paths, np.arange(len(paths)), None, steps, 0)\n"
        "try:\n"
        "    with worker_errors():\n"
        "        list(ImageLoader(data, 4, num_workers=2))\n"
        "except FoldsmithError as error:\n"
        "    print(error)\n"
    )
    inside = f'mount -t tmpfs -o size={size} tmpfs /dev/shm || exit 9; exec "$@"'
    command = ["unshare", "-m", "bash", "-c", inside, "bash", sys.executable, str(script)]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    result = subprocess.run(
        [*command, *map(str, paths)], capture_output=True, text=True, timeout=120, check=False
    )
    if result.returncode in (1, 9) and "not permitted" in result.stderr:
        pytest.skip("no right to mount")
    assert result.stdout.startswith("the shared memory /dev/shm has no room"), result.stderr
    assert "loader/train/num_workers=0" in result.stdout and "--shm-size" in result.stdout
    assert result.stderr == ""


def test_a_worker_says_nothing_when_the_main_process_hung_up(capsys):
    for error in (BrokenPipeError(), EOFError(), ValueError("said")):
        loader_module._tell_unless_hung_up(type(error), error, None)
    assert capsys.readouterr().err == "ValueError: said\n"
