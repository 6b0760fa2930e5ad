"""Training throughput of emb against PyTorch: ResNet-50 at 224x224 in bfloat16 on one GPU. Prints Markdown.

Both train the same network (He et al. 2015, the stride in a block's first 1x1) with SGD, momentum 0.9 and weight decay
1e-4, float32 weights and bfloat16 arithmetic, from the same kind of batches: uint8 images in memory, put together by a
thread in the background and sent to the GPU at every step.

emb: the zoo's `resnet` in emb's own training loop, Keras on JAX.  PyTorch: channels-last, autocast, torch.compile and
fused SGD. Each in a process of its own; they take turns, so that both see the same clocks and temperature. A round is
the images of many steps over their wall time; compilation, validation and checkpoints are left out. The ratio is that
of each round's pair; its median is what counts.

Usage: python benchmarks/training_throughput.py [--batch 256] [--rounds 9] [--steps 60] [--samples FILE.json]
Needs an NVIDIA GPU, jax[cuda12] and torch; without them it says so and measures nothing. torch is no part of emb.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 1000
PIXELS = (224, 224, 3)
BATCHES_IN_MEMORY = 8
SIDES = ("emb", "pytorch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="images a step")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds of each; one more warms up")
    parser.add_argument("--steps", type=int, default=60, help="steps a round")
    parser.add_argument("--samples", type=Path, help="write the raw samples there as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # a worker's own
    arguments = parser.parse_args()
    if arguments.side:
        {"emb": work_emb, "pytorch": work_pytorch}[arguments.side](arguments)
        return 0
    missing = what_is_missing()
    if missing:
        print(f"training_throughput: nothing was measured: {missing}", file=sys.stderr)
        return 1
    return compare(arguments)


def what_is_missing() -> str:
    """Why this machine cannot measure, or ""."""
    absent = [name for name in ("jax", "torch") if find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed"
    questions = {
        "jax": "import jax; print(jax.default_backend() == 'gpu')",
        "torch": "import torch; print(torch.cuda.is_available())",
    }
    for name, question in questions.items():
        done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
        if done.stdout.strip() != "True":
            return f"{name} finds no GPU"
    return ""


def compare(arguments: argparse.Namespace) -> int:
    """Both in turn. The first round of each compiles and warms up."""
    workers = {side: Worker(side, arguments) for side in SIDES}
    samples: dict[str, list[float]] = {side: [] for side in SIDES}
    try:
        started = {side: worker.answer() for side, worker in workers.items()}
        for number in range(arguments.rounds + 1):
            # Whoever goes first changes, so that neither always follows a pause.
            for side in SIDES if number % 2 else SIDES[::-1]:
                images_per_s = workers[side].round()
                if number:
                    samples[side].append(images_per_s)
                print(f"round {number} {side}: {images_per_s:,.0f} images/s", file=sys.stderr)
    except EOFError as death:
        print(f"training_throughput: nothing was measured: {death}", file=sys.stderr)
        return 1
    finally:
        for worker in workers.values():
            worker.end()
    ratios = [a / b for a, b in zip(*(samples[side] for side in SIDES), strict=True)]
    document = {"batch": arguments.batch, "steps": arguments.steps, **started, "images_per_s": samples, "ratio": ratios}
    if arguments.samples:
        arguments.samples.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print_table(document)
    return 0


def print_table(document: dict[str, Any]) -> None:
    samples, ratios = document["images_per_s"], document["ratio"]
    print(f"ResNet-50, 224x224, batch {document['batch']}, bfloat16, on {document['pytorch']['device']}:")
    print(f"emb with {document['emb']['versions']}; {document['pytorch']['versions']}.\n")
    print("| round | emb images/s | PyTorch images/s | emb / PyTorch |")
    print("| ---: | ---: | ---: | ---: |")
    for number, (ours, theirs, ratio) in enumerate(zip(*samples.values(), ratios, strict=True), start=1):
        print(f"| {number} | {ours:,.0f} | {theirs:,.0f} | {ratio:.3f} |")
    medians = [statistics.median(samples[side]) for side in SIDES]
    print(f"| median | {medians[0]:,.0f} | {medians[1]:,.0f} | {statistics.median(ratios):.3f} |")


class Worker:
    """One side in a process of its own: it says what it is, then trains a round whenever it gets a line."""

    def __init__(self, side: str, arguments: argparse.Namespace) -> None:
        self._side = side
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        numbers = [f"--{name}={getattr(arguments, name)}" for name in ("batch", "rounds", "steps")]
        # JAX would take three quarters of the GPU's memory at once, PyTorch takes what it needs.
        environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--side", side, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )

    def round(self) -> float:
        """Images per second of one more round."""
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        answer = self.answer()
        return float(answer["images"] / answer["seconds"])

    def answer(self) -> Any:
        """The next message. Raises EOFError with its last words if the worker has died."""
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            words = self._log.read().decode(errors="replace").strip().splitlines()[-6:]
            raise EOFError(f"{self._side} has died:\n  " + "\n  ".join(words))
        return json.loads(line)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def say(channel: Any, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def private_stdout() -> Any:
    """The parent's pipe; what libraries print goes to the log from now on."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def images_and_labels(count: int) -> tuple[Any, Any]:
    """(count, 224, 224, 3) uint8 and (count,) int64, of no meaning."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *PIXELS), dtype=np.uint8), rng.integers(0, CLASSES, count)


def work_emb(arguments: argparse.Namespace) -> None:
    """emb's own loop; an epoch is a round. Waits for its turn at the end of each epoch, where it is told of it."""
    channel = private_stdout()

    import jax
    import keras

    from emb.spec.dataset import Split
    from emb.spec.recipe import TrainSpec
    from emb.train import Progress, train
    from emb.zoo import resnet

    if jax.default_backend() != "gpu":
        raise SystemExit("JAX finds no GPU")
    names = ("emb", "keras", "jax")
    say(channel, {"versions": ", ".join(f"{name} {version(name)}" for name in names)})
    images, labels = images_and_labels(arguments.batch * BATCHES_IN_MEMORY)
    # An epoch of enough steps: the same images again and again, never copied.
    count = arguments.steps * arguments.batch
    repeated = Split(images=Repeated(images, count), labels=np.resize(labels, count).astype(np.int64))
    few = Split(images=images[: arguments.batch], labels=labels[: arguments.batch].astype(np.int64))
    window: list[tuple[int, float]] = []

    def progress(told: Progress) -> None:
        if told.validation_accuracy is None:
            window.append((told.step, time.perf_counter()))
            return
        (first, began), (last, ended) = window[0], window[-1]
        say(channel, {"images": (last - first) * arguments.batch, "seconds": ended - began})
        window.clear()
        sys.stdin.readline()

    spec = TrainSpec(
        optimizer="sgd",
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="constant",
        epochs=arguments.rounds + 2,
        batch_size=arguments.batch,
        precision="mixed_bfloat16",
    )
    keras.utils.set_random_seed(0)
    model = resnet.build(input_shape=PIXELS, classes=CLASSES, depth=50)
    sys.stdin.readline()
    with tempfile.TemporaryDirectory() as folder:
        train(model, train=repeated, validation=few, spec=spec, directory=Path(folder), progress=progress)


class Repeated:
    """A few images that stand for many: number i is image i modulo their count. See emb.spec.dataset.Images."""

    def __init__(self, images: Any, count: int) -> None:
        self._images = images
        self.shape = (count, *images.shape[1:])
        self.dtype = images.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> Any:
        return self._images[np.arange(len(self))[key] % len(self._images)]


def work_pytorch(arguments: argparse.Namespace) -> None:
    """PyTorch as its own guides have it: channels-last, autocast to bfloat16, compiled, pinned asynchronous copies."""
    channel = private_stdout()
    import torch

    device = torch.device("cuda")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    say(channel, {"versions": f"PyTorch {torch.__version__}", "device": torch.cuda.get_device_name(device)})
    torch.manual_seed(0)
    network = resnet50().to(device, memory_format=torch.channels_last)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters != 25_557_032:
        raise SystemExit(f"not the network that emb trains: {parameters:,} parameters")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    compiled = torch.compile(network)
    loss_of = torch.nn.CrossEntropyLoss()

    def step(images: Any, labels: Any) -> Any:
        # As emb's model does it: raw pixels come in, scaled to 0..1 on the GPU. NHWC memory seen as NCHW.
        x = images.permute(0, 3, 1, 2).float().div_(255.0)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            scores = compiled(x)
            loss = loss_of(scores, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def turn(steps: int, batches: Iterator[tuple[Any, Any]]) -> tuple[int, float]:
        torch.cuda.synchronize()
        began = time.perf_counter()
        before = None
        for _ in range(steps):
            loss = step(*(part.to(device, non_blocking=True) for part in next(batches)))
            if before is not None:
                before.item()  # emb's loop reads every step's loss, too, one step late
            before = loss
        torch.cuda.synchronize()
        return steps * arguments.batch, time.perf_counter() - began

    images, labels = images_and_labels(arguments.batch * BATCHES_IN_MEMORY)
    batches = in_background(lambda chosen: (pinned(images[chosen]), pinned(labels[chosen])), arguments)
    while sys.stdin.readline():
        done, seconds = turn(arguments.steps, batches)
        say(channel, {"images": done, "seconds": seconds})


def pinned(array: Any) -> Any:
    import torch

    return torch.from_numpy(array).pin_memory()


def in_background(make: Callable[[Any], Any], arguments: argparse.Namespace) -> Iterator[Any]:
    """Batches of images chosen anew each time, a few of them ready before they are asked for."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=3)

    def fill() -> None:
        rng = np.random.default_rng(0)
        while True:
            ready.put(make(rng.permutation(arguments.batch * BATCHES_IN_MEMORY)[: arguments.batch]))

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield ready.get()


def resnet50() -> Any:
    """ResNet-50 of He et al. 2015 in PyTorch: the stride in the first 1x1 of a block, as emb's zoo has it."""
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, given: int, channels: int, stride: int) -> None:
            super().__init__()
            inner = channels // 4
            self.body = nn.Sequential(
                nn.Conv2d(given, inner, 1, stride=stride, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
                nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
                nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels),
            )  # fmt: skip
            self.bridge: nn.Module = nn.Identity()
            if stride != 1 or given != channels:
                self.bridge = nn.Sequential(
                    nn.Conv2d(given, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
                )

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.bridge(x))

    blocks = []
    given = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        channels = 256 * 2**stage
        for number in range(count):
            blocks.append(Bottleneck(given, channels, 2 if stage > 0 and number == 0 else 1))
            given = channels
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(given, CLASSES),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
