"""Run the benchmarks: ``python -m benchmarks [--quick] [SUBJECT ...]``."""

import argparse
import importlib
import pkgutil

import benchmarks
from benchmarks.page import write_page

_NOT_A_SUBJECT = frozenset({"__main__", "harness", "synthetic", "page", "peers", "our_reader", "plot", "learning"})


def main() -> None:
    """Run all subjects, or those named, write their results and the page made from them."""
    subjects = sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in _NOT_A_SUBJECT
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Both sides of each ratio, in one run.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(subjects)}; by default all")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it run at all?")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.subjects) - set(subjects))
    if unknown:
        parser.error(f"no subject {', '.join(unknown)}; there are {', '.join(subjects)}")
    for subject in chosen.subjects or subjects:
        for result in importlib.import_module(f"benchmarks.{subject}").run(chosen.quick):
            print(result.line(), flush=True)
            if not chosen.quick:
                result.write()
    if not chosen.quick:
        print(f"written: {write_page()}")


if __name__ == "__main__":
    main()
