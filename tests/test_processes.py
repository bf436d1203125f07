"""Processes find each other as their launcher has told them."""

import os
import socket
import subprocess
import sys

import pytest

from .marks import slow
from .started import start_two

REPORT = """
import jax
from clp_jax.mesh import local_rows, make_mesh, start_distributed
start_distributed()
rows = local_rows(make_mesh(), 4).tolist()
print(jax.process_index(), jax.process_count(), jax.device_count(), rows)
"""


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def of_any_launcher(index, port):
    return {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
    }


def of_slurm(index, port):
    return {
        "SLURM_JOB_ID": str(port),  # JAX makes its own port of the job's number.
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }


@pytest.mark.parametrize("environment", [of_any_launcher, slow(of_slurm)])
def test_two_processes_find_each_other(environment):
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", REPORT],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"} | environment(index, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    ends = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in ends] == ["0 2 4 [0, 1]\n", "1 2 4 [2, 3]\n"], ends


DECISION = """
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
from clp_jax.errors import UserError
from clp_jax.mesh import decided_by_first, start_distributed
start_distributed()
def refuse():
    raise UserError(f"of {jax.process_index()}")
index = jax.process_index()
try:
    decided_by_first(refuse)
except UserError as error:
    print(decided_by_first(lambda: [index, None]), error)
"""


def test_the_first_process_decides_for_all():
    ends = [process.end() for process in start_two(DECISION)]
    assert [out.splitlines()[-1] for _, out in ends] == ["[0, None] of 0"] * 2, ends
