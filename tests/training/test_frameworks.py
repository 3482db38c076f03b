"""Two ranks under accelerate, the Trainer of Hugging Face and Lightning: each cell once per epoch, or an error."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from cells import make_args, make_cells, save

#: Full batches of 32 for 2 ranks of 2 workers, so that no framework repeats cells to fill the last one.
N_CELLS = 704

START = """
import json, sys, warnings
import torch
from torch.utils.data import DataLoader
from teddytok_rs.torch import Collator, OnTheFlyDataset

warnings.simplefilter("ignore")
torch.set_num_threads(1)
source, args, folder = json.loads(sys.argv[1])

def cells_of(batch):
    return batch["labels"].long().tolist()

def refusal(train):
    try:
        train(OnTheFlyDataset(source, args))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []
    def forward(self, gene_ids, attention_mask, labels, values=None):
        self.seen[-1] += labels.tolist()
        return {"loss": (self.weight * 0).sum()}
"""

ACCELERATE = """
from accelerate import Accelerator, DataLoaderConfiguration

def train(dataset, dispatch, workers=2):
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
    loader = DataLoader(dataset, 32, num_workers=workers, collate_fn=Collator.for_dataset(dataset))
    loader = accelerator.prepare(loader)
    return [[cell for batch in loader for cell in cells_of(batch)] for _ in range(2)]

if __name__ == "__main__":
    Accelerator(cpu=True)
    cases = [(dispatch, workers) for dispatch in (None, False) for workers in (0, 2)]
    refused = [refusal(lambda dataset: train(dataset, *case)) for case in cases]
    for dispatch in (None, False):
        print(json.dumps([refused, train(OnTheFlyDataset(source, args, split_by_rank=False), dispatch)]))
    raw = OnTheFlyDataset(source, args)
    loader = DataLoader(raw, 32, num_workers=2, collate_fn=Collator.for_dataset(raw))
    print(json.dumps([refused, [[cell for batch in loader for cell in cells_of(batch)] for _ in range(2)]]))
"""

TRAINER = """
from transformers import Trainer, TrainerCallback, TrainingArguments

class Epochs(TrainerCallback):
    def on_epoch_begin(self, args, state, control, model, **more):
        getattr(model, "module", model).seen.append([])

def train(dataset):
    model = Model()
    options = TrainingArguments(
        folder, num_train_epochs=2, per_device_train_batch_size=32, dataloader_num_workers=2, report_to=[],
        use_cpu=True, save_strategy="no", disable_tqdm=True,
    )
    collate = Collator.for_dataset(dataset)
    Trainer(model, options, train_dataset=dataset, data_collator=collate, callbacks=[Epochs()]).train()
    return model.seen

if __name__ == "__main__":
    refused = [refusal(train)]
    print(json.dumps([refused, train(OnTheFlyDataset(source, args, split_by_rank=False))]))
"""

LIGHTNING = """
import lightning

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Model()
    def on_train_epoch_start(self):
        self.model.seen.append([])
    def training_step(self, batch):
        return self.model(**batch)["loss"]
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

if __name__ == "__main__":
    dataset = OnTheFlyDataset(source, args)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(dataset, 32, num_workers=2, collate_fn=Collator.for_dataset(dataset)))
    print(json.dumps([[], module.model.seen]))
"""


def run_ranks(folder, script, source, args) -> list[list]:
    """Run a script as two ranks, as torchrun does; return what each printed, a document a line."""
    (folder / "train.py").write_text(START + script, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(folder / "train.py"), json.dumps([str(source), args, str(folder / "out")])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        said = [rank.communicate(timeout=500) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    return [[json.loads(line) for line in out.splitlines() if line.startswith("[[")] for out, _ in said]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("modules", "script"),
    [(["accelerate"], ACCELERATE), (["transformers", "accelerate"], TRAINER), (["lightning"], LIGHTNING)],
    ids=["accelerate", "transformers", "lightning"],
)
def test_two_ranks_see_each_cell_once_per_epoch(tmp_path, modules, script):
    for module in ["torch", *modules]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    source = save(make_cells(N_CELLS, number=np.arange(N_CELLS)), tmp_path / "cells.h5ad")
    args = make_args(tmp_path, label_column="number", max_seq_len=8, pad_length=8)
    one, other = run_ranks(tmp_path, script, source, args)
    assert len(one) == len(other) > 0
    for (refused, mine), (also_refused, theirs) in zip(one, other, strict=True):
        for message in refused + also_refused:
            assert message.startswith("ConfigError: "), message
            assert message.endswith("Set split_by_rank = False."), message
        assert len(mine) == len(theirs) == 2
        for epoch in (0, 1):
            assert Counter(mine[epoch] + theirs[epoch]) == Counter(range(N_CELLS))
            assert len(mine[epoch]) == len(theirs[epoch])
        assert (mine[0], theirs[0]) != (mine[1], theirs[1])
