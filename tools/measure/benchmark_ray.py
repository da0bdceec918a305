"""Measures the Ray runs against the plain loops on the same cores, part by part.

    python tools/measure/benchmark_ray.py prediction         # the plain loop and Ray take turns
    python tools/measure/benchmark_ray.py evaluation --rounds 4
    python tools/measure/benchmark_ray.py nodes --nodes 1 2  # simulated nodes of one core each
    python tools/measure/benchmark_ray.py feeding            # files to a GPU, a stand-in for one
    python tools/measure/benchmark_ray.py costs              # what the plan for GPUs starts from
    python tools/measure/benchmark_ray.py page               # only writes docs/benchmarks.md again

Each part adds its rounds to docs/results/ray_benchmark.json and writes its section of the page;
`--fresh` forgets the part's earlier rounds. Rates are steady ones: from the moment when the first
images (`--warm-up`, or a tenth of the pairs) are done to the end. What came before is start-up.

Prediction: the published network with random weights through pipelines/predict.py as a user calls
it; an image is done when its record is written. Evaluation: drawn pairs under many image ids.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from seamless_pr.build.configs import load_config
from seamless_pr.config.load import config_to_dict
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.files import write_json
from seamless_pr.parallel import ItemMap, available_cores
from seamless_pr.pipelines.ray_support import lock_own_cluster
from seamless_pr.pipelines.ray_tasks import item_map
from seamless_pr.street_scenes.dataset import write_street_scenes
from seamless_pr.training.checkpoints import save_weights
from tools.measure.benchmark_evaluation import categories, draw_pairs
from tools.measure.benchmark_inference import CONFIG, cpu_name, random_network

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "ray_benchmark.json"
PAGE, PLAN_PAGE = (ROOT / "docs" / name for name in ("benchmarks.md", "cluster.md"))
PLAN_MARKS = ("<!-- cluster plan -->", "<!-- /cluster plan -->")
BEGIN, END = "<!-- ray benchmark -->", "<!-- /ray benchmark -->"
IMAGE_SIZE = (512, 1024)
PAIR_SIZE = (1024, 2048)
NUM_DRAWN = 8
# Share of the pairs after which the rate counts.
STARTING_SHARE = 0.1
# Of the clusters of this process, which obey nobody else.
TOKEN = secrets.token_hex(32)
PLAIN, RAY, ONE_NETWORK = "plain loop", "Ray", "Ray, one network on all cores"
PLAIN_PROCESSES = ", plain processes"


@dataclass(frozen=True)
class Timing:
    """One run of many items.

    Attributes:
        start_seconds: from the start of the process to the first result.
        total_seconds: to the end of the process.
        rate: items a second after the first `num_starting`.
    """

    start_seconds: float
    total_seconds: float
    rate: float


def timing(start: float, done: Sequence[float], end: float, num_starting: int) -> Timing:
    """Start-up and steady rate of a run.

    Args:
        start: when the process was started.
        done: when each item was done, in any order.
        end: when the process had ended.
        num_starting: items that belong to the start-up; at least 1.

    Raises:
        ValueError: too few items.
    """
    if not 1 <= num_starting < len(done):
        raise ValueError(
            f"a rate after the first {num_starting} items needs more than {len(done)} items"
        )
    stamps = sorted(done)
    steady_seconds = stamps[-1] - stamps[num_starting - 1]
    return Timing(
        start_seconds=stamps[0] - start,
        total_seconds=end - start,
        rate=(len(stamps) - num_starting) / steady_seconds,
    )


# Prediction


def prepare_prediction(folder: Path, num_images: int) -> None:
    """Random weights of the published network, and images under as many names as wanted."""
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        net, config = random_network(), load_config(CONFIG)
        metadata = {"config": config_to_dict(config), "label_space": net.label_space.to_dict()}
        save_weights(weights, net.state_dict(), metadata)
    write_street_scenes(
        folder / "scenes", num_images={"val": NUM_DRAWN}, size=IMAGE_SIZE, seed=0, progress=False
    )
    drawn = itertools.cycle(sorted((folder / "scenes").rglob("*_leftImg8bit.png")))
    images = folder / f"images_{num_images}"
    images.mkdir(exist_ok=True)
    for number, path in zip(range(num_images), drawn):
        if not (images / f"{number:05d}.png").exists():
            os.link(path, images / f"{number:05d}.png")


def start_prediction(
    folder: Path, images: str, arguments: Sequence[str], output: Path, **variables: str
) -> subprocess.Popen[bytes]:
    shortest, longest = IMAGE_SIZE
    command = [sys.executable, str(ROOT / "pipelines" / "predict.py")]
    command += ["--weights", str(folder / "weights.safetensors"), "--device", "cpu"]
    command += ["--images", images, "--output", str(output), *arguments]
    command += [f"data.shortest_side_pixels={shortest}", f"data.longest_side_pixels={longest}"]
    shutil.rmtree(output, ignore_errors=True)
    with (output.parent / f"{output.name}.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment(**variables), cwd=ROOT, stdout=log, stderr=log
        )


def finishing_times(output: Path) -> list[float]:
    """When each image of a prediction folder was finished, in seconds of the clock."""
    return [path.stat().st_mtime for path in (output / "records").rglob("*.json")]


def time_prediction(
    folder: Path, num_images: int, warm_up: int, arguments: Sequence[str], **variables: str
) -> Timing:
    """Runs the pipeline over `num_images` images.

    Raises:
        RuntimeError: the pipeline failed; the message names its log.
    """
    output = folder / "predictions"
    start = time.time()
    images = str(folder / f"images_{num_images}")
    await_success(start_prediction(folder, images, arguments, output, **variables), output)
    return timing(start, finishing_times(output), time.time(), warm_up)


def await_success(process: subprocess.Popen[bytes], output: Path) -> None:
    if process.wait():
        raise RuntimeError(
            f"{process.args!r} ended with {process.returncode}; see {output.parent}/"
            f"{output.name}.log"
        )


def measure_prediction(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of the plain loop, Ray as it is by default, and Ray with one network."""
    prepare_prediction(options.folder, options.images)
    cores = str(available_cores())
    ways: dict[str, list[str]] = {
        PLAIN: [],
        RAY: ["--ray"],
        ONE_NETWORK: ["--ray", "--workers", "1", "--cpus-per-worker", cores],
    }
    run = partial(time_prediction, options.folder, options.images, options.warm_up)
    runs = {way: partial(run, arguments) for way, arguments in ways.items()}
    return [in_turns(round_index, runs) for round_index in round_indices(options)]


def round_indices(options: argparse.Namespace) -> range:
    """Numbers of the rounds to come; earlier ones may be stored already."""
    return range(options.first_round, options.first_round + options.rounds)


def in_turns(round_index: int, runs: Mapping[str, Callable[[], Timing]]) -> dict[str, Any]:
    """Runs all, every other round in reverse; also records how busy the machine was before."""
    result: dict[str, Any] = {"load": round(os.getloadavg()[0], 2), "cores": available_cores()}
    for name in list(runs)[:: -1 if round_index % 2 else 1]:
        found = runs[name]()
        result[name] = {key: round(value, 4) for key, value in asdict(found).items()}
        print(f"{name}: {found.rate:.2f} a second after {found.start_seconds:.1f} s", flush=True)
    return result


# Evaluation


def prepare_evaluation(folder: Path, num_pairs: int) -> Path:
    """Drawn pairs under `num_pairs` image ids; returns their folder."""
    pairs_folder = folder / f"pairs_{num_pairs}"
    if (pairs_folder / "pred_many.json").is_file():
        return pairs_folder
    pairs = draw_pairs(pairs_folder, NUM_DRAWN, PAIR_SIZE)
    for side in ("gt", "pred"):
        annotations = [
            {**getattr(pairs[number % NUM_DRAWN], side), "image_id": number}
            for number in range(num_pairs)
        ]
        content = {"annotations": annotations, "categories": categories()}
        write_json(pairs_folder / f"{side}_many.json", content)
    return pairs_folder


def record_evaluation(folder: Path, with_ray: bool, num_workers: int | None, output: Path) -> None:
    """What pipelines/evaluate.py does, with a clock beside every result."""
    stamps: list[float] = []
    cpu_seconds: list[float] = []

    def with_clock(map_items: ItemMap) -> ItemMap:
        def mapped(*arguments: Any, **keywords: Any) -> Iterator[Any]:
            for result in map_items(*arguments, **keywords):
                stamps.append(time.time())
                cpu_seconds.append(time.process_time())
                yield result

        return mapped

    gt = open_ground_truth(folder / "gt_many.json", folder / "gt")
    pred = open_predictions(folder / "pred_many.json", folder / "pred")
    opened = time.time()
    with item_map(argparse.Namespace(ray=with_ray)) as map_items:
        ready = time.time()
        found = evaluate(gt, pred, num_workers=num_workers, map_items=with_clock(map_items))
    write_json(
        output,
        {
            "cluster_seconds": ready - opened,
            "stamps": stamps,
            "cpu_seconds": cpu_seconds,
            "pq": found.panoptic.all.pq,
        },
    )


def time_evaluation(
    folder: Path, arguments: Sequence[str], **variables: str
) -> tuple[Timing, dict[str, Any]]:
    """Runs `record_evaluation` in a process of its own; returns also what it wrote."""
    output = folder / "stamps.json"
    command = [sys.executable, str(Path(__file__).resolve()), "record-evaluation"]
    command += ["--folder", str(folder), "--output", str(output), *arguments]
    start = time.time()
    with (folder / "stamps.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment(**variables), cwd=ROOT, stdout=log, stderr=log
        )
    await_success(process, folder / "stamps")
    found = json.loads(output.read_text(encoding="utf-8"))
    num_starting = max(1, round(STARTING_SHARE * len(found["stamps"])))
    return timing(start, found["stamps"], time.time(), num_starting), found


def measure_evaluation(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of one process per core and of Ray; both must give the same PQ to the last bit."""
    folder = prepare_evaluation(options.folder, options.pairs)
    rounds = []
    for round_index in round_indices(options):
        found: dict[str, dict[str, Any]] = {}
        runs = {
            PLAIN: partial(
                _record_run, found, PLAIN, folder, ["--workers", str(available_cores())]
            ),
            RAY: partial(_record_run, found, RAY, folder, ["--ray"]),
        }
        result = in_turns(round_index, runs)
        if found[PLAIN]["pq"] != found[RAY]["pq"]:
            raise RuntimeError(f"PQ {found[RAY]['pq']} with Ray, {found[PLAIN]['pq']} without")
        result[RAY]["cluster_seconds"] = round(found[RAY]["cluster_seconds"], 2)
        for way in (PLAIN, RAY):
            result[way]["driver_ms_per_pair"] = round(driver_ms_per_pair(found[way]), 4)
        rounds.append(result)
    return rounds


def _record_run(
    found: dict[str, dict[str, Any]], way: str, folder: Path, arguments: Sequence[str]
) -> Timing:
    timed, found[way] = time_evaluation(folder, arguments)
    return timed


def driver_ms_per_pair(found: dict[str, Any]) -> float:
    """Processor time of the process that adds up, per pair; what limits very many workers."""
    cpu = found["cpu_seconds"]
    first = max(1, round(STARTING_SHARE * len(cpu)))
    return 1000 * (cpu[-1] - cpu[first - 1]) / (len(cpu) - first)


# Simulated nodes


def measure_nodes(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """For each number of nodes: Ray over nodes of one core, and as many plain processes."""
    pairs = prepare_evaluation(options.folder, options.pairs)
    result: dict[str, list[dict[str, Any]]] = {}
    for num_nodes in options.nodes:
        found: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
        with simulated_cluster(num_nodes) as address:
            timed, _ = time_evaluation(pairs, ["--ray"], RAY_ADDRESS=address)
            found["evaluation"] = round(timed.rate, 3)
            if num_nodes <= available_cores():
                images = num_nodes * options.images_per_node
                prepare_prediction(options.folder, images)
                predicted = time_prediction(
                    options.folder, images, 2 * num_nodes, ["--ray"], RAY_ADDRESS=address
                )
                found["prediction"] = round(predicted.rate, 4)
        timed, _ = time_evaluation(pairs, ["--workers", str(num_nodes)])
        found["evaluation" + PLAIN_PROCESSES] = round(timed.rate, 3)
        if "prediction" in found:
            rate = plain_processes_rate(options.folder, num_nodes, options.images_per_node)
            found["prediction" + PLAIN_PROCESSES] = round(rate, 4)
        print(num_nodes, found, flush=True)
        result[str(num_nodes)] = [found]
    return result


@contextmanager
def simulated_cluster(num_nodes: int) -> Iterator[str]:
    """A head without cores and nodes of one core each, all on this machine; yields the address."""
    os.environ.update(environment())
    lock_own_cluster()
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 300 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(num_nodes):
            cluster.add_node(num_cpus=1, object_store_memory=300 * 2**20)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def plain_processes_rate(folder: Path, num_processes: int, images_each: int) -> float:
    """Images a second of plain loops of one thread each, at the same time: what the cores give."""
    images, outputs, processes = folder / f"images_{num_processes * images_each}", [], []
    for number in range(num_processes):
        share = folder / f"share_{number}.txt"
        names = sorted(images.iterdir())[number::num_processes]
        share.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        outputs.append(folder / f"predictions_{number}")
        processes.append(start_prediction(folder, str(share), [], outputs[-1], OMP_NUM_THREADS="1"))
    for process, output in zip(processes, outputs):
        await_success(process, output)
    done = [stamp for output in outputs for stamp in finishing_times(output)]
    return timing(0.0, done, 0.0, 2 * num_processes).rate


def environment(**variables: str) -> dict[str, str]:
    """The variables of a fresh shell: threads and cluster are the pipelines' own choice."""
    dropped = ("RAY_ADDRESS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    quiet = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **quiet, **variables}


# The page


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Smallest, median and largest."""
    ordered = sorted(values)
    return ordered[0], statistics.median(ordered), ordered[-1]


def ratios(rounds: Sequence[dict[str, Any]], way: str) -> tuple[float, float, float]:
    """How fast `way` is as a share of the plain loop of the same round: its `spread`."""
    return spread(found[way]["rate"] / found[PLAIN]["rate"] for found in rounds)


def throughput_table(parts: dict[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Lines of Markdown: each way of each part, medians over the rounds.

    Args:
        parts: "prediction, images" -> its rounds.
    """
    lines = [
        "| | a second | of the plain loop | first result after | whole run |",
        "|---|---:|---:|---:|---:|",
    ]
    for part, rounds in parts.items():
        for way in (name for name in rounds[0] if isinstance(rounds[0][name], dict)):
            low, middle, high = ratios(rounds, way)
            share = "1" if way == PLAIN else f"{middle:.2f} ({low:.2f} to {high:.2f})"
            rate, start, total = (
                statistics.median(found[way][key] for found in rounds)
                for key in ("rate", "start_seconds", "total_seconds")
            )
            digits = 2 if rate < 10 else 0
            lines.append(
                f"| {part}: {way} | {rate:.{digits}f} | {share} | {start:.1f} s | {total:.0f} s |"
            )
    return lines


def nodes_table(nodes: dict[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Lines of Markdown: rates over simulated nodes, and their gain over one node."""
    kinds = [
        kind + plain for kind in ("prediction", "evaluation") for plain in ("", PLAIN_PROCESSES)
    ]
    lines = [
        "| nodes of one core | images a second | plain processes | pairs a second "
        "| plain processes |",
        "|---:|---:|---:|---:|---:|",
    ]

    def rate(num_nodes: str, kind: str) -> float | None:
        found = [one[kind] for one in nodes[num_nodes] if kind in one]
        return statistics.median(found) if found else None

    for num_nodes in sorted(nodes, key=int):
        cells = [num_nodes]
        for kind in kinds:
            value, alone = rate(num_nodes, kind), rate("1", kind) if "1" in nodes else None
            if value is None:
                cells.append("–")
                continue
            gain = f" (× {value / alone:.2f})" if alone and num_nodes != "1" else ""
            cells.append(f"{value:.{2 if value < 10 else 0}f}{gain}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def section(result: dict[str, Any]) -> str:
    """Everything between the marks of the page; parts that were not measured are left out."""
    lines: list[str] = []
    measured = {
        f"{name}, {unit}": result[name]["rounds"]
        for name, unit in (("prediction", "images"), ("evaluation", "pairs"))
        if name in result
    }
    if measured:
        lines += ["### Against the plain loop on the same cores", "", *throughput_table(measured)]
        lines += ["", conditions(result), ""]
    if "nodes" in result:
        lines += ["### Over simulated nodes", "", *nodes_table(result["nodes"]), ""]
        lines += [
            f"Simulated nodes share the {result['machine']['cores']} cores of this machine: more "
            "nodes than cores cannot gain anything. The plain processes beside them (one thread "
            "each, no Ray, started together) show what the cores themselves give. In brackets the "
            "gain over one node. The driver and the processes of Ray run on the same cores; "
            "over nodes the results of evaluation (8 kB a pair) travel from store to store. "
            f"Rounds: {', '.join(str(len(r)) for _, r in sorted(result['nodes'].items()))}.",
            "",
        ]
    if "feeding" in result:
        from tools.measure.ray_feeding import feeding_section

        lines += [feeding_section(result["feeding"]), ""]
    return "\n".join(lines).rstrip()


def plan(result: dict[str, Any]) -> str | None:
    """What the costs come to on a cluster, for its page; None before they were measured."""
    if "costs" not in result:
        return None
    from tools.measure.cluster_plan import plan_section

    return plan_section(result["costs"], result.get("evaluation", {}).get("rounds", []))


def conditions(result: dict[str, Any]) -> str:
    """The sentences below the table."""
    machine, text = result["machine"], []
    loads = [found["load"] for part in ("prediction", "evaluation") if part in result
             for found in result[part]["rounds"]]  # fmt: skip
    if "prediction" in result:
        part = result["prediction"]
        text.append(
            f"Prediction: {part['num_images']} images of {IMAGE_SIZE[0]}x{IMAGE_SIZE[1]}, the rate "
            f"without the first {part['warm_up']}; Seamless R50, single precision; the plain loop "
            "gives all threads to one image, Ray by default runs one network per core. "
            f"{len(part['rounds'])} rounds."
        )
    if "evaluation" in result:
        part = result["evaluation"]
        cluster = statistics.median(found[RAY]["cluster_seconds"] for found in part["rounds"])
        text.append(
            f"Evaluation: {part['num_pairs']} pairs of {PAIR_SIZE[0]}x{PAIR_SIZE[1]} from PNG "
            f"files, {len(part['rounds'])} rounds, the same PQ to the last bit. Starting Ray "
            f"itself takes {cluster:.1f} s of the time before the first result."
        )
    text.append(
        f"Medians (smallest to largest ratio of one round); the ways take turns. "
        f"{machine['cores']} threads of {machine['cpu']}, Python {machine['python']}, "
        f"torch {machine['torch']}, Ray {machine['ray']}; load of the machine before each round "
        f"{min(loads):.1f} to {max(loads):.1f}."
    )
    return " ".join(text)


def replaced(page: str, text: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with `text` between its marks.

    Raises:
        ValueError: the marks are missing.
    """
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"expected the lines {marks[0]} and {marks[1]} in the page; add them")
    return f"{before}{marks[0]}\n{text}\n{marks[1]}{after}"


def merged(result: dict[str, Any], part: str, found: Any, fresh: bool) -> dict[str, Any]:
    """The stored result with newly measured rounds of one part.

    Args:
        result: what is stored.
        part: "prediction", "evaluation", "nodes", "feeding" or "costs".
        found: rounds with their conditions; number of nodes -> rounds; or the costs.
        fresh: forget the part's earlier rounds.

    Raises:
        ValueError: the earlier rounds were measured under other conditions.
    """
    old = {} if fresh else result.get(part, {})
    if part == "costs" or not old:
        return {**result, part: found}
    if part == "nodes":
        joined = {name: old.get(name, []) + found.get(name, []) for name in {**old, **found}}
        return {**result, part: joined}
    for key in (old.keys() | found.keys()) - {"rounds"}:
        if old.get(key) != found.get(key):
            raise ValueError(
                f"{part} was measured with {key} {old.get(key)} before and {found.get(key)} now; "
                "give --fresh to forget the earlier rounds"
            )
    return {**result, part: {**found, "rounds": old["rounds"] + found["rounds"]}}


def measure(options: argparse.Namespace) -> Any:
    """What the part adds to the stored result."""
    if options.part == "prediction":
        settings = {"num_images": options.images, "warm_up": options.warm_up}
        return {**settings, "rounds": measure_prediction(options)}
    if options.part == "evaluation":
        return {"num_pairs": options.pairs, "rounds": measure_evaluation(options)}
    if options.part == "nodes":
        return measure_nodes(options)
    if options.part == "feeding":
        from tools.measure.ray_feeding import measure_feeding

        settings = {"num_images": options.fed_images, "network_ms": options.network_ms}
        return {**settings, "rounds": measure_feeding(options, round_indices(options))}
    from tools.measure.cluster_plan import measure_costs

    return measure_costs(options.folder)


def machine() -> dict[str, Any]:
    import ray
    import torch

    return {
        "cores": available_cores(),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("prediction", "evaluation", "nodes", "feeding", "costs", "page", "record-evaluation")
    parser.add_argument("part", choices=parts, metavar="PART", help=", ".join(parts[:-1]))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--images", type=int, default=24, help="to predict (default: 24)")
    parser.add_argument("--warm-up", type=int, default=4, help="not in the rate (default: 4)")
    parser.add_argument("--pairs", type=int, default=4000, help="to evaluate (default: 4000)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images-per-node", type=int, default=10)
    parser.add_argument("--fed-images", type=int, default=400, help="for feeding (default: 400)")
    parser.add_argument(
        "--network-ms", type=float, default=60, help="an image, of the stand-in (default: 60)"
    )
    parser.add_argument("--fresh", action="store_true", help="forget earlier rounds of the part")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "ray_benchmark", help="drawn images, results"
    )
    parser.add_argument("--output", type=Path, default=STORED_RESULT, help="JSON of the result")
    parser.add_argument("--page", type=Path, default=PAGE, help="Markdown page of the tables")
    parser.add_argument(
        "--plan-page", type=Path, default=PLAN_PAGE, help="Markdown page of the plan"
    )
    # Of the process that the evaluation is timed in.
    parser.add_argument("--ray", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def stored_result(path: Path) -> dict[str, Any]:
    """What earlier runs found; empty at the first."""
    if not path.is_file():
        return {}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.part == "record-evaluation":
        record_evaluation(options.folder, options.ray, options.workers, options.output)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    result = stored_result(options.output)
    if options.part != "page":
        earlier = {} if options.fresh else result.get(options.part, {})
        options.first_round = len(earlier.get("rounds", []))
        found = measure(options)
        # Another part may have been stored in the meantime.
        result = merged(stored_result(options.output), options.part, found, options.fresh)
        result["machine"] = machine()
        write_json(options.output, result)
    text = section(result)
    page = replaced(options.page.read_text(encoding="utf-8"), text)
    options.page.write_text(page, encoding="utf-8")
    print(text)
    if (planned := plan(result)) is not None:
        page = replaced(options.plan_page.read_text(encoding="utf-8"), planned, PLAN_MARKS)
        options.plan_page.write_text(page, encoding="utf-8")
        print(planned)
    return 0


if __name__ == "__main__":
    sys.exit(main())
