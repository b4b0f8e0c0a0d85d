"""What `accelerate launch` runs in every process of the test: a toy training.

Arguments: cache, folder, and how: start, stop (after a step) or resume.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from studio.training import data
from tests.training.test_training import FACES, STAGE_2, state_of, toy_trainer


def main(cache, folder, how):
    torch.set_num_threads(1)
    data.SHARD = FACES
    folder = Path(folder)
    trainer = toy_trainer(Path(cache), folder / "training", **STAGE_2, images=16, adversarial_weight=0.05)
    rank = trainer.team.accelerator.process_index
    if how == "resume":
        trainer.resume()
    trainer.run(minutes=0 if how == "stop" else None)
    state = state_of(trainer) | {f"critic.{n}": x for n, x in trainer.critics["adversarial"].net.state_dict().items()}
    save_file({name: value.contiguous().clone() for name, value in state.items()}, folder / f"rank-{rank}.safetensors")
    print(f"rank {rank} of {trainer.team.accelerator.num_processes}: {trainer.step} steps, {trainer.images} images")
    trainer.team.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
