"""Pictures of adversarial examples, made through the command line: they decode, and fit records, data and ball."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from robustbench_cmic.data import load_data
from robustbench_cmic.data.named import SOURCES
from robustbench_cmic.models.build import build_model
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import unpack_outcomes
from robustbench_cmic.records.pictures import Pictures, read_pictures, write_pictures
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.job import run_job
from robustbench_cmic.run.jobs.pictures import png
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.data import Digits
from robustbench_cmic.suite.models import model_of
from tests.conftest import TINY_SUITE, Cli, contents
from tests.in_process import settings_for

DIGITS = load_data(Digits(name="digits"), Path())


def decoded(text: str) -> npt.NDArray[np.float64]:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.format == "PNG"
    return np.asarray(image) / 255


def attacks(suite: Path) -> list[Cell]:
    return make_plan(load_suite(suite).suite).of("attack")


def correct(folder: Path, cell: Cell) -> list[bool]:
    record = read_record(Store(folder).record(cell.id))
    assert isinstance(record, AttackRecord)
    assert record.n is not None
    return list(unpack_outcomes(record.outcomes or "", record.n))


def shown(folder: Path, cell: Cell) -> Pictures:
    pictures = read_pictures(folder, cell.id)
    assert pictures is not None
    return pictures


def check(folder: Path, cells: list[Cell], cell: Cell) -> None:
    """Against the records, the data, and the ball."""
    pictures = shown(folder, cell)
    (clean,) = (other for other in cells if other.attack == "none" and other.needs == cell.needs)
    record = read_record(Store(folder).record(cell.id))
    facts = (pictures.model, pictures.seed, pictures.attack, pictures.norm, pictures.eps)
    assert facts == (cell.model, cell.seed, cell.attack, cell.norm, cell.eps)
    assert (pictures.dataset_sha256, pictures.checkpoint_sha256) == (record.dataset_sha256, record.checkpoint_sha256)
    pairs = enumerate(zip(correct(folder, clean), correct(folder, cell), strict=True))
    broken = [index for index, (before, after) in pairs if before and not after]
    assert [example.index for example in pictures.examples] == broken[:4]
    assert len(pictures.examples) == 4
    for example in pictures.examples:
        assert example.label == example.before == DIGITS.test.labels[example.index]
        assert example.after != example.label
        assert pictures.name(example.label) == str(example.label)
        original = DIGITS.test.images[example.index : example.index + 1][0, 0]
        before, after, delta = map(decoded, (example.clean, example.adversarial, example.perturbation))
        assert np.abs(before - original).max() <= 0.5 / 255 + 1e-6
        change = after - before
        length = np.abs(change).max() if cell.norm == "linf" else np.sqrt((change**2).sum())
        assert 0 < length <= cell.eps + (1 / 255 if cell.norm == "linf" else 8 / 255)
        scale = cell.eps if cell.norm == "linf" else np.abs(change).max()
        # Both images are rounded by half a level, and that is scaled with them.
        assert np.abs(delta - (change / (2 * scale) + 0.5)).max() <= 1.5 / 255 / scale + 1 / 255


def test_pictures_fit_records_data_and_ball(finished: Path) -> None:
    cells = attacks(finished / "tiny.yaml")
    folder = finished / "results" / "tiny"
    attacked = [cell for cell in cells if cell.eps > 0]
    assert {file.stem for file in (folder / "pictures").iterdir()} == {cell.id for cell in attacked}
    for cell in attacked:
        check(folder, cells, cell)


def test_predictions_and_confidence_are_the_models(finished: Path) -> None:
    """The trained model is asked anew about the clean images; about adversarial ones up to the rounding of a PNG."""
    cell = next(cell for cell in attacks(finished / "tiny.yaml") if cell.attack == "FGSM")
    model = build_model(model_of(cell.declared["train"]["model"]), DIGITS.image_shape, 10, DIGITS.moments, 0)
    from safetensors.torch import load_file

    model.load_state_dict(load_file(finished / "results.work" / "tiny" / f"{cell.needs}.safetensors"))
    model.eval()
    for example in shown(finished / "results" / "tiny", cell).examples:
        image = torch.from_numpy(DIGITS.test.images[example.index : example.index + 1])
        adversarial = torch.from_numpy(decoded(example.adversarial)).float()[None, None]
        with torch.no_grad():
            before, after = (torch.softmax(model(x).double(), 1)[0] for x in (image, adversarial))
        assert int(before.argmax()) == example.before
        assert example.confidence_before == pytest.approx(float(before.max()), abs=1e-5)
        assert example.confidence_after == pytest.approx(float(after[example.after]), abs=0.05)


def test_only_the_smallest_seed_is_pictured_transfers_and_l2_too(tiny: Path, cli_here: Cli) -> None:
    text = TINY_SUITE.replace("{name: PGD, eps: 0.1, steps: 3}", "{name: PGD, norm: l2, eps: 1.0, steps: 5}")
    text = text.replace("audit: off", "  - {name: Transfer, eps: 0.2, steps: 3}\naudit: off")
    tiny.write_text(text.replace("pairs:", "seeds: [2, 1]\npairs:"))
    done = cli_here("run", tiny, cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = attacks(tiny)
    folder = tiny.parent / "results" / "tiny"
    expected = [cell for cell in cells if cell.eps > 0 and cell.seed == 1]
    assert {file.stem for file in (folder / "pictures").iterdir()} == {cell.id for cell in expected}
    assert {cell.attack for cell in expected} == {"FGSM", "PGD", "Transfer:ce", "Transfer:cmic"}
    for cell in expected:
        check(folder, cells, cell)


def test_pictures_make_no_cell_undone_and_are_not_trusted_when_altered(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    before = contents(folder)
    missing, altered, foreign, torn = files = [
        folder / "pictures" / f"{cell.id}.json" for cell in attacks(copied / "tiny.yaml") if cell.eps > 0
    ]
    missing.unlink()
    altered.write_text(altered.read_text().replace('"label": ', '"label": 1'))
    foreign.write_text(torn.read_text())
    torn.write_text("{")
    for file in files:
        assert read_pictures(folder, file.stem) is None
    done = cli_here("run", "tiny.yaml", cwd=copied)
    assert "all 8 cells are done already" in done.stdout
    assert done.returncode == cli_here("report", "tiny", cwd=copied).returncode == 0
    assert contents(folder) == before
    assert not missing.exists()


def test_pictures_are_made_again_with_their_cell(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    pictures = {file.name: file.read_bytes() for file in (folder / "pictures").iterdir()}
    for name in pictures:
        (folder / "pictures" / name).write_text("{")
    assert cli_here("run", "tiny.yaml", "--force", "--only", "FGSM", cwd=copied).returncode == 0
    fresh = {file.name for file in (folder / "pictures").iterdir() if file.read_bytes() == pictures[file.name]}
    assert fresh == {name for name in pictures if ".FGSM." in name}


def test_an_attack_that_fails_leaves_no_pictures_of_its_last_success(copied: Path) -> None:
    """Its weights are gone: the cell fails, in this process."""
    folder, work = copied / "results" / "tiny", copied / "results.work" / "tiny"
    cell = next(cell for cell in attacks(copied / "tiny.yaml") if cell.eps > 0)
    (work / f"{cell.needs}.safetensors").unlink()
    settings = settings_for(folder, store=Store(folder, work))
    assert read_pictures(folder, cell.id) is not None
    assert run_job(cell, settings, lambda _: None).status == "failed"
    assert read_pictures(folder, cell.id) is None


def test_pictures_that_cannot_be_written_fail_no_cell(finished: Path, tiny: Path, cli_here: Cli) -> None:
    folder = tiny.parent / "results" / "tiny"
    folder.mkdir(parents=True)
    (folder / "pictures").write_text("in the way")
    done = cli_here("run", tiny, cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ce seed 0: FGSM linf eps 0.1: cannot write pictures: " in done.stdout
    assert contents(folder) == contents(finished / "results" / "tiny")


def test_large_images_are_shrunk_and_colours_kept() -> None:
    image = torch.zeros(3, 100, 50)
    image[0] = 1.0
    seen = decoded(png(image))
    assert seen.shape == (64, 32, 3)
    assert (seen == [1, 0, 0]).all()
    assert decoded(png(torch.full((1, 64, 64), 0.5))).shape == (64, 64)
    assert png(image) == png(image.clone())


def test_a_class_without_a_name_is_no_picture(finished: Path, tmp_path: Path) -> None:
    folder = finished / "results" / "tiny"
    cell = next(cell for cell in attacks(finished / "tiny.yaml") if cell.eps > 0)
    pictures = shown(folder, cell)
    write_pictures(tmp_path, pictures)
    assert read_pictures(tmp_path, cell.id) == pictures
    write_pictures(tmp_path, pictures.model_copy(update={"class_names": ["zero"]}))
    assert read_pictures(tmp_path, cell.id) is None
    assert pictures.model_copy(update={"class_names": None}).name(3) == "3"


def test_every_named_data_set_has_a_name_for_every_class() -> None:
    assert DIGITS.class_names == SOURCES["mnist"].class_names == tuple("0123456789")
    for name, source in SOURCES.items():
        assert len(set(source.class_names)) == (100 if name == "cifar100" else 10)
    assert list(SOURCES["cifar100"].class_names) == sorted(SOURCES["cifar100"].class_names)
