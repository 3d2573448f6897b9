"""What users of the official Python client and of kopf rely on, asked of the cluster that KUBECONFIG names.

Prints `ok WHAT` for each step, and ends with status 1 at the first that went wrong.
"""

import sys
import traceback

from kubernetes import config

import custom
import kopf_story
import objects
import streams
import watches
from world import World


def main():
    config.load_kube_config()
    world = World()
    for story in (objects, watches, custom, streams, kopf_story):
        for step in story.STEPS:
            try:
                step(world)
            except BaseException:
                traceback.print_exc()
                sys.exit(f"failed: {step.__doc__}")
            print(f"ok {step.__doc__}", flush=True)


if __name__ == "__main__":
    main()
