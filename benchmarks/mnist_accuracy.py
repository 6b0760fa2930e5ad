"""Accuracy of lenet and lenet-caffe on real MNIST, three seeds each, every scheme, every runtime. Prints Markdown.

Usage: python benchmarks/mnist_accuracy.py [--seeds 3] [RECIPE ...]      needs MNIST (emb data fetch mnist)
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import emb
from emb.spec.report import Report

SCHEMES = "float32,float16,dynamic,int8,int16x8"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("recipes", nargs="*", default=["lenet", "lenet-caffe"])
    arguments = parser.parse_args()
    print(
        "| recipe | seed | training s | file | runtime | mode | accuracy % | 95 % | agree % | against float32, points |"
    )
    print("| --- | ---: | ---: | --- | --- | --- | ---: | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for recipe in arguments.recipes:
            for seed in range(arguments.seeds):
                report = emb.build(
                    recipe, quantize=SCHEMES, data="mnist", train__seed=seed, output=Path(folder) / f"{recipe}-{seed}"
                )
                print_rows(report, seed)


def print_rows(report: Report, seed: int) -> None:
    """One line a row; the change is counted from the float32 .tflite on LiteRT."""
    reference = next(row.accuracy for row in report.rows if row.scheme == "float32" and row.runtime == "litert")
    for row in report.rows:
        start = (
            f"| {report.recipe} | {seed} | {report.seconds['train']:.0f} | {row.file} | {row.runtime} | {row.mode} |"
        )
        if row.accuracy is None or reference is None:
            print(f"{start} {row.source} | | | |", flush=True)
            continue
        print(
            f"{start} {100 * row.accuracy:.2f} | {100 * row.accuracy_low:.2f}–{100 * row.accuracy_high:.2f} "
            f"| {100 * row.agreement:.2f} | {100 * (row.accuracy - reference):+.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
