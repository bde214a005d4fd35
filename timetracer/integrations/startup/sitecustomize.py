"""Has a Python process that a test starts recorded or replayed, once it imports PyMongo.

The directory of this file stands first on PYTHONPATH while a suite runs. It costs a process that
never imports PyMongo nothing but this file; a `sitecustomize` of the user's own is run as before.
"""

import sys
from typing import Any

_HAS_RUN = "the startup of timetracer has run"


def _run_the_next_one() -> None:
    import os
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    others = [place for place in sys.path if os.path.abspath(place or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _tell(error: Exception) -> None:
    import json
    import os

    sys.stderr.write(f"timetracer: this process is not recorded: {error!r}\n")
    line = json.dumps({"out of reach": f"{' '.join(sys.orig_argv)}: {error!r}"})
    with open(json.loads(os.environ["TIMETRACER_CHILD"])["news"], "a") as file:
        file.write(f"{line}\n")


def _wait_for_pymongo() -> None:
    import os

    if not os.environ.get("TIMETRACER_CHILD"):
        return

    class Waiting:
        """Looks for PyMongo as all others do, and begins once it is imported."""

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if name != "pymongo":
                return None
            sys.meta_path.remove(self)
            from importlib.util import find_spec

            spec = find_spec(name)
            if spec is None or spec.loader is None:
                return spec
            run = spec.loader.exec_module

            def run_and_begin(module: Any) -> None:
                run(module)
                if "timetracer.integrations.children" in sys.modules:
                    return  # a suite of its own, such as that of a worker of pytest-xdist
                try:
                    from timetracer.integrations.children import begin

                    begin()
                except Exception as error:  # the program is worth more than its recording
                    _tell(error)

            vars(spec.loader)["exec_module"] = run_and_begin
            return spec

    sys.meta_path.insert(0, Waiting())


if _HAS_RUN not in sys.modules:  # others of its kind run the next one too, which may be this
    sys.modules[_HAS_RUN] = sys
    _wait_for_pymongo()
    _run_the_next_one()
